import torch
import torch.nn as nn

STEPS = 150
EXPECTED = dict(rules={"growth", "explosion"}, module=None, causes=None, optimizer="optimizer", at=40, patience=110,
                say="the targets are noiseless and log_var is free: it falls without a floor, and 1/var multiplies the gradient exponentially")


class Probabilistic(nn.Module):
    def __init__(self):
        super().__init__()
        self.mu = nn.Linear(4, 1)
        self.log_var = nn.Parameter(torch.zeros(1))


def train(track, steps):
    torch.manual_seed(22)
    model = Probabilistic()
    w = torch.randn(4, 1)
    with torch.no_grad():  # the mean was fitted before
        model.mu.weight.copy_(w.T + 1e-3)
        model.mu.bias.zero_()
    opt = torch.optim.Adam([{"params": model.mu.parameters(), "lr": 1e-3}, {"params": [model.log_var], "lr": 0.15}])
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(64, 4)
            err = (model.mu(x) - (x @ w)) ** 2
            loss = 0.5 * (err * torch.exp(-model.log_var) + model.log_var).mean()
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
