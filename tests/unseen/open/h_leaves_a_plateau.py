import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 150
EXPECTED = None
DOUBT = "small-weight init: the norm doubles several times while the net leaves the saddle at 0 (brief: a plateau's end is healthy; by the letter `growth` may hold)"

def train(track, steps):
    torch.manual_seed(290)
    model = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
    for m in model:
        nn.init.normal_(m.weight, std=0.12)
    x = torch.randn(256, 8)
    y = x @ torch.linalg.qr(torch.randn(8, 8))[0] * 2
    opt = torch.optim.SGD(model.parameters(), 0.3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            loss = F.mse_loss(model(x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
