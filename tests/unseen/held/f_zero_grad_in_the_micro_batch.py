import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 50
EXPECTED = dict(rules={"lost"}, module=None, causes={"zeroed", "lost", None}, optimizer="optimizer", at=1,
                say="zero_grad stands inside the accumulation loop: three of four micro-batches are erased before the step")


def train(track, steps):
    torch.manual_seed(88)
    model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 3))
    opt = torch.optim.AdamW(model.parameters(), 2e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            for _ in range(4):
                opt.zero_grad()
                x = torch.randn(8, 10)
                loss = F.cross_entropy(model(x), x[:, :3].argmax(1)) / 4
                loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
