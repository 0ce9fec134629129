import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 120
EXPECTED = dict(rules={"growth", "explosion", "nonfinite"}, module=None, causes=None, optimizer="optimizer", at=1, patience=119,
                say="the rate is above 2/L for the steepest direction: the error grows by a constant factor each step")


def train(track, steps):
    torch.manual_seed(19)
    model = nn.Linear(20, 1)
    x = torch.randn(256, 20)
    x[:, 0] *= 3.0  # one feature was not standardised
    y = x @ torch.randn(20, 1)
    opt = torch.optim.SGD(model.parameters(), lr=0.13)
    net = nn.Sequential()
    net.add_module("linear", model)
    losses = []
    with track(opt, net):
        for _ in range(steps):
            loss = F.mse_loss(net(x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
