import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = dict(rules={"zero"}, module=("loc", "loc.0", "loc.2"), causes={"constant"}, optimizer="optimizer", at=1,
                say="grid_sample with mode='nearest' is piecewise constant in the grid: the localisation net gets exactly 0")


class Stn(nn.Module):
    def __init__(self):
        super().__init__()
        self.loc = nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 6))
        self.cls = nn.Linear(64, 3)
        with torch.no_grad():
            self.loc[2].weight.mul_(0.1)
            self.loc[2].bias.copy_(torch.tensor([1.0, 0, 0, 0, 1, 0]))

    def forward(self, x):
        theta = self.loc(x.flatten(1)).view(-1, 2, 3)
        grid = F.affine_grid(theta, x.shape, align_corners=False)
        return self.cls(F.grid_sample(x, grid, mode="nearest", align_corners=False).flatten(1))


def train(track, steps):
    torch.manual_seed(52)
    model = Stn()
    opt = torch.optim.Adam(model.parameters(), 2e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.rand(16, 1, 8, 8)
            y = torch.randint(0, 3, (16,))
            x[torch.arange(16), 0, 2 * y] += 1
            loss = F.cross_entropy(model(x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
