import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 80
EXPECTED = dict(rules={"leaked"}, module=None, causes={"leaked", None}, optimizer="optimizer", at=2,
                say="accumulation gone wrong: the step is inside the micro-batch loop and zero_grad outside, so gradients are applied up to four times")


def train(track, steps):
    torch.manual_seed(87)
    model = nn.Sequential(nn.Embedding(16, 16), nn.Linear(16, 16))
    opt = torch.optim.AdamW(model.parameters(), 1e-3)
    losses = []
    with track(opt, model):
        for i in range(steps):
            t = torch.randint(0, 16, (8, 6))
            if i % 4 == 0:
                opt.zero_grad()
            loss = F.cross_entropy(model(t).flatten(0, 1), ((t + 3) % 16).flatten()) / 4
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
