import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 80
EXPECTED = None


def train(track, steps):
    torch.manual_seed(256)
    net = nn.Sequential(nn.Linear(1, 24), nn.Tanh(), nn.Linear(24, 1))
    meta = torch.optim.Adam(net.parameters(), 5e-3)
    losses = []
    with track(meta, net):
        for _ in range(steps):
            meta.zero_grad()
            total = 0.0
            for _ in range(2):
                a, b = 1.5 + 0.5 * torch.rand(1), 1 + torch.rand(1)
                x, xq = torch.randn(20, 1), torch.randn(20, 1)
                fast = dict(net.named_parameters())
                for _ in range(2):
                    l = F.mse_loss(torch.func.functional_call(net, fast, x), a * x + b)
                    g = torch.autograd.grad(l, list(fast.values()), create_graph=True)
                    fast = {k: p - 0.1 * d for (k, p), d in zip(fast.items(), g)}
                q = F.mse_loss(torch.func.functional_call(net, fast, xq), a * xq + b) / 2
                q.backward()
                total += q.item()
            meta.step()
            losses.append(total)
    return losses
