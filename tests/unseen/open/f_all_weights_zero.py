import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = dict(rules={"zero"}, module=("trunk", "trunk.0", "trunk.2"), causes={"zero-weight"}, optimizer="optimizer", at=1,
                say="init_weights sets every Linear's weight to 0: only the last bias has a gradient, the trunk sees a zero matrix")


def init_weights(m):
    if isinstance(m, nn.Linear):
        nn.init.zeros_(m.weight)
        nn.init.zeros_(m.bias)


def train(track, steps):
    torch.manual_seed(43)
    model = nn.Sequential()
    model.add_module("trunk", nn.Sequential(nn.Linear(8, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh()))
    model.add_module("head", nn.Linear(24, 1))
    model.apply(init_weights)
    opt = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(32, 8)
            loss = F.mse_loss(model(x), x.sum(1, keepdim=True) + 3)
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
