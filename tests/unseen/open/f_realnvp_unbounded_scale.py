import torch
import torch.nn as nn

STEPS = 90
EXPECTED = dict(rules={"nonfinite", "explosion"}, module=None, causes={"nonfinite-loss", "nonfinite-op", None}, optimizer="optimizer", at=60,
                say="the coupling's scale goes through a bare exp: an outlier of the data makes it overflow to inf")


class Coupling(nn.Module):
    def __init__(self, flip):
        super().__init__()
        self.flip = flip
        self.net = nn.Sequential(nn.Linear(1, 24), nn.ReLU(), nn.Linear(24, 2))

    def forward(self, x):
        a, b = x.chunk(2, 1)
        if self.flip:
            a, b = b, a
        s, t = self.net(a).chunk(2, 1)
        b = b * s.exp() + t
        return torch.cat([b, a] if self.flip else [a, b], 1), s.sum(1)


class Flow(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([Coupling(i % 2) for i in range(4)])

    def forward(self, x):
        logdet = 0
        for layer in self.layers:
            x, d = layer(x)
            logdet = logdet + d
        return x, logdet


def train(track, steps):
    torch.manual_seed(8)
    flow = Flow()
    opt = torch.optim.Adam(flow.parameters(), 2e-3)
    losses = []
    with track(opt, flow):
        for i in range(1, steps + 1):
            x = torch.randn(64, 2) * torch.tensor([1.0, 0.4])
            x[:, 1] += 0.5 * x[:, 0] ** 2
            if i >= 60:
                x[0] = torch.tensor([3e4, -3e4])  # a sensor glitch
            z, logdet = flow(x)
            loss = (0.5 * (z ** 2).sum(1) - logdet).mean()
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
