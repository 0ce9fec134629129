import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 80
EXPECTED = None


def train(track, steps):
    torch.manual_seed(230)
    model = nn.Sequential(nn.Linear(16, 48), nn.LayerNorm(48), nn.GELU(), nn.Linear(48, 4))
    opt = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(64, 16)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = F.cross_entropy(model(x), x[:, :4].argmax(1))
            opt.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            opt.step()
            losses.append(loss.item())
    return losses
