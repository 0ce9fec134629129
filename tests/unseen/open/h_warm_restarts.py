import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 150
EXPECTED = None


def train(track, steps):
    torch.manual_seed(239)
    model = nn.Sequential(nn.Conv1d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 2))
    opt = torch.optim.AdamW(model.parameters(), 1e-2)
    sched = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(opt, 30, 2)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            y = torch.randint(0, 2, (32,))
            x = torch.sin(torch.arange(20.0) * (0.5 + 0.7 * y[:, None]) + torch.rand(32, 1) * 6)[:, None] + 0.3 * torch.randn(32, 1, 20)
            loss = F.cross_entropy(model(x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            sched.step()
            losses.append(loss.item())
    return losses
