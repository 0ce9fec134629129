import torch
import torch.nn as nn

STEPS = 70
EXPECTED = None


def train(track, steps):
    torch.manual_seed(285)
    E = nn.Sequential(nn.Linear(2, 32), nn.SiLU(), nn.Linear(32, 1))
    opt = torch.optim.Adam(E.parameters(), 2e-3)
    losses = []
    with track(opt, E):
        for _ in range(steps):
            real = torch.sign(torch.randn(64, 2)) + 0.1 * torch.randn(64, 2)
            x = torch.randn(64, 2)
            for _ in range(5):
                x = x.detach().requires_grad_(True)
                g = torch.autograd.grad(E(x).sum(), x)[0]
                x = x - 0.1 * g + 0.1 * torch.randn_like(x)
            x = x.detach()
            er, ef = E(real), E(x)
            loss = er.mean() - ef.mean() + 0.1 * (er ** 2 + ef ** 2).mean()
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
