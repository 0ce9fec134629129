import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 70
EXPECTED = dict(rules={"clip-broken"}, module=None, causes=None, optimizer="optimizer", at=2,
                say="params is a generator made once: clip_grad_norm_ uses it up at the first step, and clips nothing afterwards")


def train(track, steps):
    torch.manual_seed(95)
    model = nn.Sequential(nn.Linear(10, 32), nn.Tanh(), nn.Linear(32, 1))
    params = filter(lambda p: p.requires_grad, model.parameters())
    opt = torch.optim.SGD(model.parameters(), 0.01)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(32, 10)
            loss = F.mse_loss(model(x), 2 * x.sum(1, keepdim=True))
            opt.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(params, 0.5)
            opt.step()
            losses.append(loss.item())
    return losses
