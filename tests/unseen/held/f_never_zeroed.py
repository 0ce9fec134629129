import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 90
EXPECTED = dict(rules={"leaked"}, module=None, causes={"leaked", None}, optimizer="optimizer", at=2,
                say="zero_grad is missing altogether: each step consumes the sum of all gradients so far")


def train(track, steps):
    torch.manual_seed(85)
    model = nn.Sequential()
    model.add_module("rnn_in", nn.Linear(6, 24))
    model.add_module("act", nn.Tanh())
    model.add_module("out", nn.Linear(24, 2))
    opt = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(32, 6)
            loss = F.cross_entropy(model(x), (x[:, 0] > 0).long())
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
