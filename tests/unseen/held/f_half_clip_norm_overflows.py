import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = dict(rules={"clip-overflow", "zero"}, module=None, causes={"clip-overflow", None}, optimizer="optimizer", at=1,
                say="the gradients are float16 and finite, their norm (as float16) is inf: clipping multiplies them by 0")


def train(track, steps):
    torch.manual_seed(100)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)).half()
    opt = torch.optim.SGD(model.parameters(), 0.01)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(64, 16).half()
            y = torch.randint(0, 4, (64,))
            loss = F.cross_entropy(model(x).float(), y)
            opt.zero_grad()
            (loss * 2.0 ** 18).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            opt.step()
            losses.append(loss.item())
    return losses
