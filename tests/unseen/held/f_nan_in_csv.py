import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 90
EXPECTED = dict(rules={"nonfinite"}, module=None, causes={"nonfinite-loss", "nonfinite-op"}, optimizer="optimizer", at=60,
                say="a row of the data holds NaN (a missing value), and from that batch on everything is NaN")


def train(track, steps):
    torch.manual_seed(4)
    data = torch.randn(2000, 10)
    target = data[:, :3].sum(1, keepdim=True)
    data[59 * 16 + 5, 7] = float("nan")
    model = nn.Sequential(nn.Linear(10, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 1))
    opt = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    with track(opt, model):
        for i in range(steps):
            x, y = data[i * 16:(i + 1) * 16], target[i * 16:(i + 1) * 16]
            loss = F.mse_loss(model(x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
