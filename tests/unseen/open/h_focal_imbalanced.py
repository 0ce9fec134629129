import math

import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 120
EXPECTED = None


def train(track, steps):
    torch.manual_seed(271)
    model = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 1))
    nn.init.constant_(model[2].bias, -math.log(99))
    opt = torch.optim.Adam(model.parameters(), 5e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(128, 6)
            y = (x[:, 0] > 1.8).float()
            z = model(x)[:, 0]
            p = torch.sigmoid(z)
            pt = torch.where(y == 1, p, 1 - p)
            loss = ((1 - pt) ** 2 * F.binary_cross_entropy_with_logits(z, y, reduction="none")).sum() / y.sum().clamp(min=1)
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
