import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 80
EXPECTED = None


def train(track, steps):
    torch.manual_seed(291)
    model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 3))
    opt = torch.optim.AdamW(model.parameters(), 5e-3)
    losses, norms = [], []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(32, 10)
            loss = F.cross_entropy(model(x), x[:, :3].argmax(1))
            opt.zero_grad()
            loss.backward()
            norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), float("inf"))))
            opt.step()
            losses.append(loss.item())
    return losses
