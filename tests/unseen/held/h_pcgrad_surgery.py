import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 70
EXPECTED = None
DOUBT = "the gradients are written by hand (p.grad = ...), by no backward: healthy, but by the letter of `stale` no backward has written them"

def train(track, steps):
    torch.manual_seed(295)
    trunk = nn.Sequential(nn.Linear(8, 32), nn.ReLU())
    heads = nn.ModuleList([nn.Linear(32, 1), nn.Linear(32, 1)])
    net = nn.ModuleDict({"trunk": trunk, "heads": heads})
    opt = torch.optim.Adam(net.parameters(), 3e-3)
    params = list(net.parameters())
    losses = []
    with track(opt, net):
        for _ in range(steps):
            x = torch.randn(64, 8)
            h = trunk(x)
            each = [F.mse_loss(heads[0](h), x[:, :1]), F.mse_loss(heads[1](h), x[:, 1:2] - x[:, :1])]
            gs = []
            for l in each:
                g = torch.autograd.grad(l, params, retain_graph=True, allow_unused=True)
                gs.append(torch.cat([torch.zeros(p.numel()) if t is None else t.flatten() for p, t in zip(params, g)]))
            out = [g.clone() for g in gs]
            for i in range(2):
                d = out[i] @ gs[1 - i]
                if d < 0:
                    out[i] -= d / gs[1 - i].pow(2).sum() * gs[1 - i]
            flat = sum(out)
            opt.zero_grad()
            k = 0
            for p in params:
                p.grad = flat[k:k + p.numel()].view_as(p).clone()
                k += p.numel()
            opt.step()
            losses.append(sum(each).item())
    return losses
