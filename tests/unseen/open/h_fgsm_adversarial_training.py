import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 80
EXPECTED = None


def train(track, steps):
    torch.manual_seed(276)
    model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 3))
    opt = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(64, 10)
            y = x[:, :3].argmax(1)
            adv = x.clone().requires_grad_(True)
            F.cross_entropy(model(adv), y).backward()  # also writes into the weights' .grad
            adv = (x + 0.1 * adv.grad.sign()).detach()
            opt.zero_grad()
            loss = F.cross_entropy(model(adv), y)
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
