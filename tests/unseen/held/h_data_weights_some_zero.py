import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 90
EXPECTED = None


def train(track, steps):
    torch.manual_seed(297)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))
    opt = torch.optim.AdamW(model.parameters(), 5e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(64, 8)
            y = (x[:, 0] > 0).long()
            w = (torch.rand(64) < 0.3).float()  # most labels are missing
            loss = (w * F.cross_entropy(model(x), y, reduction="none")).sum() / w.sum().clamp(min=1)
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
