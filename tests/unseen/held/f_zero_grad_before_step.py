import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = dict(rules={"zero", "lost"}, module=None, causes={"zeroed"}, optimizer="optimizer", at=1,
                say="zero_grad is called between backward and step: the step has nothing to apply")


def train(track, steps):
    torch.manual_seed(80)
    model = nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 1))
    opt = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(32, 8)
            loss = F.mse_loss(model(x), x.sum(1, keepdim=True))
            loss.backward()
            opt.zero_grad()
            opt.step()
            losses.append(loss.item())
    return losses
