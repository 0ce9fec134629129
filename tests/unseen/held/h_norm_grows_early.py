import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 100
EXPECTED = None


def train(track, steps):
    torch.manual_seed(289)
    model = nn.Sequential(nn.Linear(8, 16, bias=False), nn.Linear(16, 4, bias=False))
    for m in model:
        nn.init.normal_(m.weight, std=0.06)
    w = torch.randn(8, 4)
    opt = torch.optim.SGD(model.parameters(), 0.02)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(128, 8)
            loss = F.mse_loss(model(x), x @ w + 0.3 * torch.randn(128, 4))
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
