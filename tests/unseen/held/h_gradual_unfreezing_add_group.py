import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 120
EXPECTED = None


def train(track, steps):
    torch.manual_seed(265)
    model = nn.Sequential()
    model.add_module("low", nn.Sequential(nn.Linear(10, 32), nn.ReLU()))
    model.add_module("mid", nn.Sequential(nn.Linear(32, 32), nn.ReLU()))
    model.add_module("head", nn.Linear(32, 3))
    model.low.requires_grad_(False)
    model.mid.requires_grad_(False)
    opt = torch.optim.Adam(model.head.parameters(), 5e-3)
    losses = []
    with track(opt, model):
        for i in range(steps):
            for at, part in ((40, model.mid), (80, model.low)):
                if i == at:
                    part.requires_grad_(True)
                    opt.add_param_group({"params": part.parameters(), "lr": 1e-3})
            x = torch.randn(64, 10)
            loss = F.cross_entropy(model(x), x[:, :3].argmax(1))
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
