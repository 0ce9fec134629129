import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 100
EXPECTED = None
DOUBT = "the backbone is in the optimizer while frozen for the first 40 steps (on purpose): by the letter of `zero` this is cause `frozen`"

def train(track, steps):
    torch.manual_seed(266)
    model = nn.Sequential()
    model.add_module("backbone", nn.Sequential(nn.Linear(10, 32), nn.ReLU()))
    model.add_module("head", nn.Linear(32, 3))
    opt = torch.optim.Adam(model.parameters(), 5e-3)
    model.backbone.requires_grad_(False)
    losses = []
    with track(opt, model):
        for i in range(steps):
            if i == 40:
                model.backbone.requires_grad_(True)
            x = torch.randn(64, 10)
            loss = F.cross_entropy(model(x), x[:, :3].argmax(1))
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
