import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = dict(rules={"clip-broken"}, module=None, causes=None, optimizer="optimizer", at=1,
                say="clip_grad_norm_ runs on every micro-batch of an accumulation: early ones are clipped again and again, the sum is no clipped mean")


def train(track, steps):
    torch.manual_seed(93)
    model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1))
    opt = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            opt.zero_grad()
            for _ in range(4):
                x = torch.randn(8, 10)
                loss = F.mse_loss(model(x), 3 * x.sum(1, keepdim=True)) / 4
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            opt.step()
            losses.append(loss.item())
    return losses
