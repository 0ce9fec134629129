import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 100
EXPECTED = None


def train(track, steps):
    torch.manual_seed(298)
    model = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 3))
    with torch.no_grad():
        model[0].bias[:32] = -20.0  # half of the units are dead; the layer is not
    opt = torch.optim.Adam(model.parameters(), 4e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(64, 10)
            loss = F.cross_entropy(model(x), x[:, :3].argmax(1))
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
