import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = None


def train(track, steps):
    torch.manual_seed(234)
    model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 3))
    opt = torch.optim.AdamW(model.parameters(), 5e-3)
    losses = []
    opt.zero_grad()
    with track(opt, model):
        for i in range(steps * 4):
            x = torch.randn(16, 10)
            loss = F.cross_entropy(model(x), x[:, :3].argmax(1))
            (loss / 4).backward()
            if (i + 1) % 4 == 0:
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                opt.step()
                opt.zero_grad()
            losses.append(loss.item())
    return losses
