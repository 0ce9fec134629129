import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = None


def train(track, steps):
    torch.manual_seed(304)
    model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 3))
    opt = torch.optim.SGD(model.parameters(), 1e-5)
    losses = []
    with track(opt, model):
        for i in range(steps):
            opt.param_groups[0]["lr"] = 1e-5 * (3e4 ** (i / steps))
            x = torch.randn(64, 10)
            loss = F.cross_entropy(model(x), x[:, :3].argmax(1))
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
