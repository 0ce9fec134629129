import torch
import torch.nn as nn

STEPS = 100
EXPECTED = None


def train(track, steps):
    torch.manual_seed(259)
    model = nn.Sequential()
    model.add_module("svm", nn.Linear(8, 1))
    opt = torch.optim.SGD(model.parameters(), 0.05, weight_decay=1e-2)
    w = torch.randn(8)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(32, 8)
            y = torch.sign(x @ w + 0.7 * torch.randn(32))
            loss = (1 - y * model(x)[:, 0]).clamp(min=0).mean()
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
