import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = None


def train(track, steps):
    torch.manual_seed(272)
    f = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 2))
    opt = torch.optim.Adam(f.parameters(), 1e-2)
    A = torch.tensor([[-0.1, 1.0], [-1.0, -0.1]])
    losses = []
    with track(opt, f):
        for _ in range(steps):
            x = torch.randn(32, 2)
            true, pred = x, x
            loss = 0
            for _ in range(5):
                h = 0.2
                k1 = f(pred)
                k2 = f(pred + h / 2 * k1)
                k3 = f(pred + h / 2 * k2)
                k4 = f(pred + h * k3)
                pred = pred + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
                true = true @ torch.matrix_exp(A * h).T
                loss = loss + F.mse_loss(pred, true) / 5
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
