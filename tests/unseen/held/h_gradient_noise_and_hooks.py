import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 80
EXPECTED = None


def train(track, steps):
    torch.manual_seed(301)
    model = nn.Sequential(nn.Linear(10, 32), nn.Softplus(), nn.Linear(32, 3))
    for p in model.parameters():
        p.register_hook(lambda g: g.clamp(-0.5, 0.5))
    opt = torch.optim.SGD(model.parameters(), 0.2, momentum=0.9)
    losses = []
    with track(opt, model):
        for i in range(steps):
            x = torch.randn(64, 10)
            loss = F.cross_entropy(model(x), x[:, :3].argmax(1))
            opt.zero_grad()
            loss.backward()
            with torch.no_grad():
                for p in model.parameters():
                    p.grad.add_(torch.randn_like(p), alpha=0.01 / (1 + i) ** 0.55)
            opt.step()
            losses.append(loss.item())
    return losses
