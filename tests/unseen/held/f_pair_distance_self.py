import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = dict(rules={"nonfinite"}, module=None, causes={"nonfinite-op"}, optimizer="optimizer", at=1,
                say="the pair distances hold each node's distance to itself, and sqrt has an infinite derivative at 0")


class Egnnish(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(3, 16)
        self.edge = nn.Sequential(nn.Linear(33, 32), nn.SiLU(), nn.Linear(32, 16))
        self.out = nn.Linear(16, 1)

    def forward(self, x):
        h = self.embed(x)
        d = ((h[:, :, None] - h[:, None]) ** 2).sum(-1, keepdim=True).sqrt()
        n = x.shape[1]
        pair = torch.cat([h[:, :, None].expand(-1, n, n, -1), h[:, None].expand(-1, n, n, -1), d], -1)
        return self.out(self.edge(pair).sum(2)).mean(1)


def train(track, steps):
    torch.manual_seed(2)
    model = Egnnish()
    opt = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(8, 6, 3)
            y = x.norm(dim=-1).mean(1, keepdim=True)
            loss = F.mse_loss(model(x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
