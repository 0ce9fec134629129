import torch
import torch.nn as nn

STEPS = 120
EXPECTED = None


def train(track, steps):
    torch.manual_seed(269)
    model = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 3))
    tau = torch.tensor([0.1, 0.5, 0.9])
    opt = torch.optim.Adam(model.parameters(), 5e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(64, 4)
            y = x[:, :1] * 2 + torch.randn(64, 1) * (1 + x[:, 1:2].abs())
            e = y - model(x)
            loss = torch.max(tau * e, (tau - 1) * e).mean()
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
