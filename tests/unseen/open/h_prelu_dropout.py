import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 80
EXPECTED = None


def train(track, steps):
    torch.manual_seed(260)
    model = nn.Sequential(nn.Linear(10, 64), nn.PReLU(), nn.Dropout(0.5), nn.Linear(64, 32), nn.PReLU(32), nn.Dropout(0.5), nn.Linear(32, 3))
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
