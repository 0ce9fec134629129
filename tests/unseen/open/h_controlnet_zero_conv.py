import itertools

import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 90
EXPECTED = None


class ControlNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.base = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 1, 3, padding=1)).requires_grad_(False)
        self.hint = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.SiLU())
        self.zero = nn.Conv2d(8, 1, 1)
        nn.init.zeros_(self.zero.weight)
        nn.init.zeros_(self.zero.bias)

    def forward(self, x, c):
        return self.base(x) + self.zero(self.hint(c))


def train(track, steps):
    torch.manual_seed(206)
    net = ControlNet()
    opt = torch.optim.AdamW(itertools.chain(net.hint.parameters(), net.zero.parameters()), 5e-3)
    losses = []
    with track(opt, net):
        for _ in range(steps):
            x, c = torch.randn(8, 1, 6, 6), torch.randn(8, 1, 6, 6)
            loss = F.mse_loss(net(x, c), net.base(x) + 0.7 * c.abs())
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
