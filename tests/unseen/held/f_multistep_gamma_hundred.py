import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 130
EXPECTED = dict(rules={"explosion", "nonfinite", "growth"}, module=None, causes=None, optimizer="optimizer", at=91, patience=38,
                say="MultiStepLR's gamma is 100 instead of 0.01: after the milestone the rate is far above what the loss stands, and it diverges")


def train(track, steps):
    torch.manual_seed(16)
    model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1))
    opt = torch.optim.SGD(model.parameters(), 0.02)
    sched = torch.optim.lr_scheduler.MultiStepLR(opt, [90], gamma=100)
    w = torch.randn(10, 1)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(64, 10)
            loss = F.mse_loss(model(x), x @ w + 0.3 * torch.randn(64, 1))
            opt.zero_grad()
            loss.backward()
            opt.step()
            sched.step()
            losses.append(loss.item())
    return losses
