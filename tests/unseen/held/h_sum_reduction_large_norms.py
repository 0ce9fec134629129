import torch
import torch.nn as nn

STEPS = 100
EXPECTED = None


def train(track, steps):
    torch.manual_seed(252)
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 16))
    opt = torch.optim.Adam(model.parameters(), 2e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = 3 * torch.randn(128, 4).repeat(1, 4)
            loss = ((model(x) - x) ** 2).sum()
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
