import torch
import torch.nn as nn

STEPS = 150
EXPECTED = dict(rules={"clip-saturated"}, module=None, causes=None, optimizer="optimizer", at=1, patience=149,
                say="the loss sums over batch, tokens and pixels while max_norm is 0.1: every step is cut by a factor of thousands")


def train(track, steps):
    torch.manual_seed(97)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16))
    opt = torch.optim.SGD(model.parameters(), 0.1)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(128, 16)
            loss = ((model(x) - 4 * x) ** 2).sum()
            opt.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            opt.step()
            losses.append(loss.item())
    return losses
