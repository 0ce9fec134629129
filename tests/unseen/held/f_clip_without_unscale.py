import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 150
EXPECTED = dict(rules={"clip-saturated", "clip-broken"}, module=None, causes=None, optimizer="optimizer", at=1, patience=149,
                say="clipping runs on gradients still scaled by GradScaler (no unscale_): the limit is 16384 times too tight")


def train(track, steps):
    torch.manual_seed(98)
    model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 2))
    opt = torch.optim.AdamW(model.parameters(), 1e-3)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0 ** 14)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(32, 10)
            opt.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                out = model(x)
            loss = F.cross_entropy(out.float(), (x[:, 0] > 0).long())
            scaler.scale(loss).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(opt)
            scaler.update()
            losses.append(loss.item())
    return losses
