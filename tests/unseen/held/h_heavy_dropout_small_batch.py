import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 120
EXPECTED = None


def train(track, steps):
    torch.manual_seed(261)
    model = nn.Sequential(nn.Dropout(0.2), nn.Linear(12, 256), nn.ReLU(), nn.Dropout(0.9), nn.Linear(256, 2))
    opt = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(16, 12)
            loss = F.cross_entropy(model(x), (x[:, :4].sum(1) > 0).long())
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
