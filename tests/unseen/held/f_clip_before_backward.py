import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 70
EXPECTED = dict(rules={"clip-broken"}, module=None, causes=None, optimizer="optimizer", at=1,
                say="clipping comes before backward, on gradients that do not exist yet or are zero: the step is not limited")


def train(track, steps):
    torch.manual_seed(91)
    model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1))
    opt = torch.optim.SGD(model.parameters(), 0.003)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(32, 10)
            loss = F.mse_loss(model(x), 5 * x.sum(1, keepdim=True))
            opt.zero_grad(set_to_none=False)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
