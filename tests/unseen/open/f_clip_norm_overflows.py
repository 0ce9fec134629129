import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = dict(rules={"clip-overflow", "zero"}, module=None, causes={"clip-overflow", None}, optimizer="optimizer", at=30,
                say="finite gradients of 1e20: the sum of their squares is inf in float32, and clipping by max_norm/inf erases the update")


def train(track, steps):
    torch.manual_seed(99)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
    opt = torch.optim.SGD(model.parameters(), 0.02)
    losses = []
    with track(opt, model):
        for i in range(1, steps + 1):
            x = torch.randn(32, 8)
            loss = F.mse_loss(model(x), x[:, :1])
            if i >= 30:
                loss = loss * 1e22  # energies in joules
            opt.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            opt.step()
            losses.append(min(loss.item(), 1e9))
    return losses
