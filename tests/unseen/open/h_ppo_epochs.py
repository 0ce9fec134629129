import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 120
EXPECTED = None


def train(track, steps):
    torch.manual_seed(223)
    net = nn.ModuleDict({"body": nn.Sequential(nn.Linear(5, 32), nn.Tanh()), "pi": nn.Linear(32, 3), "v": nn.Linear(32, 1)})
    opt = torch.optim.Adam(net.parameters(), 2e-3, eps=1e-5)
    losses, done = [], 0
    with track(opt, net):
        while done < steps:
            s = torch.randn(128, 5)
            with torch.no_grad():
                h = net["body"](s)
                d = torch.distributions.Categorical(logits=net["pi"](h))
                a = d.sample()
                old, v = d.log_prob(a), net["v"](h)[:, 0]
                ret = (a == s[:, :3].argmax(1)).float()
                adv = ret - v
            for _ in range(4):
                for idx in torch.randperm(128).chunk(2):
                    h = net["body"](s[idx])
                    d = torch.distributions.Categorical(logits=net["pi"](h))
                    ratio = (d.log_prob(a[idx]) - old[idx]).exp()
                    A = (adv[idx] - adv[idx].mean()) / (adv[idx].std() + 1e-8)
                    loss = -torch.min(ratio * A, ratio.clamp(0.8, 1.2) * A).mean()
                    loss = loss + 0.5 * F.mse_loss(net["v"](h)[:, 0], ret[idx]) - 0.01 * d.entropy().mean()
                    opt.zero_grad()
                    loss.backward()
                    torch.nn.utils.clip_grad_norm_(net.parameters(), 0.5)
                    opt.step()
                    done += 1
            losses.append(-ret.mean().item())
    return losses
