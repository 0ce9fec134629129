import copy

import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 120
EXPECTED = None


class Denoiser(nn.Module):
    def __init__(self):
        super().__init__()
        self.time = nn.Sequential(nn.Linear(16, 32), nn.SiLU())
        self.inp = nn.Linear(2, 32)
        self.mid = nn.Sequential(nn.SiLU(), nn.Linear(32, 32), nn.SiLU())
        self.out = nn.Linear(32, 2)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x, t):
        f = torch.exp(-torch.arange(8) * 0.5)
        e = torch.cat([torch.sin(t[:, None] * f), torch.cos(t[:, None] * f)], 1)
        return self.out(self.mid(self.inp(x) + self.time(e)))


def train(track, steps):
    torch.manual_seed(205)
    net = Denoiser()
    ema = copy.deepcopy(net).requires_grad_(False)
    opt = torch.optim.AdamW(net.parameters(), 2e-3)
    abar = torch.cumprod(1 - torch.linspace(1e-4, 0.05, 100), 0)
    losses = []
    with track(opt, net):
        for _ in range(steps):
            x0 = torch.sign(torch.randn(128, 2)) + 0.1 * torch.randn(128, 2)
            t = torch.randint(0, 100, (128,))
            eps = torch.randn_like(x0)
            xt = abar[t].sqrt()[:, None] * x0 + (1 - abar[t]).sqrt()[:, None] * eps
            loss = F.mse_loss(net(xt, t.float()), eps)
            opt.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            opt.step()
            with torch.no_grad():
                for a, b in zip(ema.parameters(), net.parameters()):
                    a.lerp_(b, 0.01)
            losses.append(loss.item())
    return losses
