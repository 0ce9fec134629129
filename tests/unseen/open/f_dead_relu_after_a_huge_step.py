import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 90
EXPECTED = dict(rules={"zero"}, module=("body", "body.0", "body.2"), causes={"dead-relu"}, optimizer="optimizer", at=43,
                say="one step at a rate of 50 (a scheduler bug) throws the biases far below 0, and all ReLUs are dead ever after")


def train(track, steps):
    torch.manual_seed(36)
    model = nn.Sequential()
    model.add_module("body", nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU()))
    model.add_module("head", nn.Linear(16, 1))
    with torch.no_grad():
        model.head.weight.abs_()
        model.body[2].weight.abs_()
    opt = torch.optim.SGD(model.parameters(), 0.01)
    losses = []
    with track(opt, model):
        for i in range(1, steps + 1):
            x = torch.rand(64, 10)
            y = x.sum(1, keepdim=True) * 0.1
            opt.param_groups[0]["lr"] = 200.0 if i == 41 else 0.01
            if i == 41:
                y = y - 10
            loss = F.mse_loss(model(x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(min(loss.item(), 1e9))
    return losses
