import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 150
EXPECTED = None


def train(track, steps):
    torch.manual_seed(267)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1))
    opt = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    with track(opt, model):
        for i in range(steps):
            x = torch.randn(64, 8)
            y = x[:, :2].sum(1, keepdim=True) + torch.randn(64, 1)
            if i in (60, 61, 104):
                y = y + 2.0 * torch.randn(64, 1)  # mislabelled batches, with a loss some five times the usual
            loss = F.mse_loss(model(x), y)
            opt.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            opt.step()
            losses.append(loss.item())
    return losses
