import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 110
EXPECTED = dict(rules={"explosion"}, module=None, causes=None, optimizer="optimizer", at=80,
                say="from step 80 the second dataset comes in with pixels 0..255 where the first had 0..1: gradients jump by orders of magnitude")


def train(track, steps):
    torch.manual_seed(15)
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 1))
    opt = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)
    losses = []
    with track(opt, model):
        for i in range(1, steps + 1):
            x = torch.rand(16, 1, 8, 8)
            y = x.mean((1, 2, 3))[:, None]
            if i >= 80:
                x = (x * 255).round()
            loss = F.smooth_l1_loss(model(x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
