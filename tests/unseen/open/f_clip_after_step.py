import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 70
EXPECTED = dict(rules={"clip-broken"}, module=None, causes=None, optimizer="optimizer", at=1,
                say="clip_grad_norm_ is called after optimizer.step(): it clips what has been applied already")


def train(track, steps):
    torch.manual_seed(90)
    model = nn.LSTM(4, 24, batch_first=True)
    head = nn.Linear(24, 1)
    net = nn.ModuleDict({"lstm": model, "head": head})
    opt = torch.optim.SGD(net.parameters(), 0.02, momentum=0.9)
    losses = []
    with track(opt, net):
        for _ in range(steps):
            x = torch.randn(16, 10, 4)
            loss = F.mse_loss(head(model(x)[0][:, -1]), 3 * x.sum((1, 2))[:, None] / 6)
            opt.zero_grad()
            loss.backward()
            opt.step()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 0.25)
            losses.append(loss.item())
    return losses
