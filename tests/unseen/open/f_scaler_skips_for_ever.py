import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = dict(rules={"nonfinite"}, module=None, causes={"nonfinite-loss", "nonfinite-op"}, optimizer="optimizer", at=1,
                say="GradScaler skips each and every step: a NaN in the backward (log of 0 times 0) is no matter of the scale, and nothing is trained")


def train(track, steps):
    torch.manual_seed(9)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))
    opt = torch.optim.AdamW(model.parameters(), 1e-3)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(16, 8)
            y = F.one_hot(x[:, :4].argmax(1), 4).float()
            opt.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = model(x)
            p = torch.softmax(logits.float() * 200, -1)
            loss = -(y * torch.log(p)).sum(1).mean() - (p * torch.log(p)).sum(1).mean()
            scaler.scale(loss).backward()
            scaler.step(opt)
            scaler.update()
            losses.append(loss.item())
    return losses
