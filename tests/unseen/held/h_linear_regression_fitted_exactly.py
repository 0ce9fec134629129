import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 150
EXPECTED = None


def train(track, steps):
    torch.manual_seed(254)
    x = torch.randn(128, 6)
    y = x @ torch.randn(6, 1) + 0.5
    model = nn.Linear(6, 1)
    opt = torch.optim.SGD(model.parameters(), 0.05)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            loss = F.mse_loss(model(x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
