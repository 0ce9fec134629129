import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 80
EXPECTED = dict(rules={"stale"}, module=None, causes={"stale", "no-backward", None}, optimizer="optimizer", at=40,
                say="the guard against a bad loss skips backward but not the step, and zero_grad comes after: the last gradient is applied again")


def train(track, steps):
    torch.manual_seed(83)
    model = nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 1))
    opt = torch.optim.SGD(model.parameters(), 0.01)
    losses = []
    with track(opt, model):
        for i in range(1, steps + 1):
            x = torch.randn(32, 8)
            y = x.sum(1, keepdim=True)
            if i >= 40:
                y = y + 100.0  # outliers: the guard holds for every batch
            loss = F.mse_loss(model(x), y)
            if loss.item() < 50:
                opt.zero_grad()
                loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
