import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 90
EXPECTED = None


class Res(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, d))

    def forward(self, x, rate):
        if self.training:
            keep = (torch.rand(len(x), 1) >= rate).float() / (1 - rate)
            return x + keep * self.net(x)
        return x + self.net(x)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(10, 24)
        self.blocks = nn.ModuleList([Res(24) for _ in range(5)])
        self.head = nn.Linear(24, 3)

    def forward(self, x):
        h = self.stem(x)
        for i, b in enumerate(self.blocks):
            h = b(h, 0.6 * i / 4)
        return self.head(h)


def train(track, steps):
    torch.manual_seed(262)
    model = Net()
    opt = torch.optim.AdamW(model.parameters(), 2e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(32, 10)
            loss = F.cross_entropy(model(x), x[:, :3].argmax(1))
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
