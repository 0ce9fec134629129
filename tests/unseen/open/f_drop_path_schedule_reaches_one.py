import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 90
EXPECTED = dict(rules={"zero"}, module=("blocks.3", "blocks.3.net", "blocks.3.net.0", "blocks.3.net.2"), causes={"masked", "zero-factor"}, optimizer="optimizer", at=40,
                say="the stochastic depth rate grows linearly with the step and passes 1: the last block is dropped for every sample")


class Residual(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(d, d), nn.GELU(), nn.Linear(d, d))

    def forward(self, x, rate):
        keep = (torch.rand(x.shape[0], 1) >= rate).float()
        return x + keep * self.net(x)


class Deep(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(8, 16)
        self.blocks = nn.ModuleList([Residual(16) for _ in range(4)])
        self.head = nn.Linear(16, 2)

    def forward(self, x, rate):
        h = self.stem(x)
        for i, b in enumerate(self.blocks):
            h = b(h, rate * i / 3)
        return self.head(h)


def train(track, steps):
    torch.manual_seed(68)
    model = Deep()
    opt = torch.optim.AdamW(model.parameters(), 2e-3)
    losses = []
    with track(opt, model):
        for i in range(1, steps + 1):
            x = torch.randn(32, 8)
            loss = F.cross_entropy(model(x, min(1.0, 0.025 * i)), (x[:, 0] > 0).long())
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
