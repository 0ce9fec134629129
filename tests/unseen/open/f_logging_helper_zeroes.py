import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 90
EXPECTED = dict(rules={"zero", "lost"}, module=None, causes={"zeroed"}, optimizer="optimizer", at=40,
                say="a saliency helper that logs input gradients calls model.zero_grad() between backward and step, from step 40 on")


def saliency(model, x):
    x = x.clone().requires_grad_(True)
    g = torch.autograd.grad(model(x).sum(), x)[0]
    model.zero_grad(set_to_none=False)
    return g.abs().mean()


def train(track, steps):
    torch.manual_seed(81)
    model = nn.Sequential(nn.Linear(8, 24), nn.Tanh(), nn.Linear(24, 1))
    opt = torch.optim.SGD(model.parameters(), 0.02)
    losses = []
    with track(opt, model):
        for i in range(1, steps + 1):
            x = torch.randn(32, 8)
            loss = F.mse_loss(model(x), x[:, :2].sum(1, keepdim=True))
            opt.zero_grad()
            loss.backward()
            if i >= 40:
                saliency(model, x)
            opt.step()
            losses.append(loss.item())
    return losses
