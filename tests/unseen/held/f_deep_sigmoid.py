import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 80
EXPECTED = dict(rules={"vanishing"}, module=None, causes=None, optimizer="optimizer", at=1,
                say="14 sigmoid layers with small weights: each takes a factor of a tenth and more, and the first layers get nothing")


def train(track, steps):
    torch.manual_seed(30)
    layers = []
    for i in range(14):
        layers += [nn.Linear(16, 16), nn.Sigmoid()]
    model = nn.Sequential()
    model.add_module("body", nn.Sequential(*layers))
    model.add_module("head", nn.Linear(16, 2))
    for m in model.body:
        if isinstance(m, nn.Linear):
            nn.init.normal_(m.weight, std=0.05)
    opt = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(32, 16)
            y = (x[:, 0] > 0).long()
            loss = F.cross_entropy(model(x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
