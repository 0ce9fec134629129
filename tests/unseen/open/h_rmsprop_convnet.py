import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 90
EXPECTED = None


def train(track, steps):
    torch.manual_seed(293)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.GroupNorm(2, 8), nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    opt = torch.optim.RMSprop(model.parameters(), 2e-3, momentum=0.9, weight_decay=1e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            y = torch.randint(0, 2, (16,))
            x = torch.rand(16, 1, 8, 8)
            x[y == 1] = x[y == 1].cumsum(-1) / 16 + 0.5 * x[y == 1]
            x = x + 0.3 * torch.randn_like(x)
            loss = F.cross_entropy(model(x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
