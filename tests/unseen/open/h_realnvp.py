import torch
import torch.nn as nn

STEPS = 120
EXPECTED = None


class Coupling(nn.Module):
    def __init__(self, flip):
        super().__init__()
        self.flip = flip
        self.net = nn.Sequential(nn.Linear(1, 32), nn.ReLU(), nn.Linear(32, 2))
        nn.init.zeros_(self.net[2].weight)
        nn.init.zeros_(self.net[2].bias)

    def forward(self, x):
        a, b = x.chunk(2, 1)
        if self.flip:
            a, b = b, a
        s, t = self.net(a).chunk(2, 1)
        s = torch.tanh(s)
        b = b * s.exp() + t
        return torch.cat([b, a] if self.flip else [a, b], 1), s.sum(1)


class Flow(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([Coupling(i % 2) for i in range(4)])

    def forward(self, x):
        total = 0
        for layer in self.layers:
            x, d = layer(x)
            total = total + d
        return x, total


def train(track, steps):
    torch.manual_seed(209)
    flow = Flow()
    opt = torch.optim.Adam(flow.parameters(), 3e-3)
    losses = []
    with track(opt, flow):
        for _ in range(steps):
            x = torch.randn(128, 2)
            x[:, 1] = 0.5 * x[:, 1] + 0.5 * x[:, 0] ** 2
            z, ld = flow(x)
            loss = (0.5 * (z ** 2).sum(1) - ld).mean()
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
