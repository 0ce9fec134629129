import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 120
EXPECTED = dict(rules={"explosion"}, module=None, causes=None, optimizer="optimizer", at=80,
                say="a config reload sets the inner rate to 5: the inner loop of five steps diverges, and the meta-gradient through it explodes")


def train(track, steps):
    torch.manual_seed(20)
    net = nn.Sequential(nn.Linear(1, 20), nn.Tanh(), nn.Linear(20, 1))
    meta = torch.optim.Adam(net.parameters(), 1e-3)
    losses = []
    with track(meta, net):
        for i in range(1, steps + 1):
            inner_lr = 0.02 if i < 80 else 5.0
            meta.zero_grad()
            total = 0
            for _ in range(2):
                amp, ph = torch.rand(1) * 2 + 0.5, torch.rand(1) * 3
                x = torch.rand(10, 1) * 6 - 3
                y = amp * torch.sin(x + ph)
                fast = dict(net.named_parameters())
                for _ in range(3):
                    l = F.mse_loss(torch.func.functional_call(net, fast, x), y)
                    g = torch.autograd.grad(l, list(fast.values()), create_graph=True)
                    fast = {k: p - inner_lr * d for (k, p), d in zip(fast.items(), g)}
                xq = torch.rand(10, 1) * 6 - 3
                total = total + F.mse_loss(torch.func.functional_call(net, fast, xq), amp * torch.sin(xq + ph))
            total.backward()
            meta.step()
            losses.append(total.item())
    return losses
