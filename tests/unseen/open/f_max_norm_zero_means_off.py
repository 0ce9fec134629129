import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = dict(rules={"zero", "clip-saturated"}, module=None, causes={"clipped-to-zero"}, optimizer="optimizer", at=1,
                say="max_norm=0.0 was meant to switch clipping off, as in other trainers: it multiplies each gradient by 0")


def train(track, steps):
    torch.manual_seed(101)
    max_norm = 0.0
    model = nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 2))
    opt = torch.optim.AdamW(model.parameters(), 1e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(32, 8)
            loss = F.cross_entropy(model(x), (x[:, 0] > 0).long())
            opt.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
            opt.step()
            losses.append(loss.item())
    return losses
