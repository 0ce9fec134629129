import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = dict(rules={"nonfinite"}, module=None, causes={"nonfinite-op"}, optimizer="optimizer", at=1,
                say="the geodesic loss is acos of a cosine clamped to 1: its derivative there is inf, times the clamp's 0 or the fit's own")


def train(track, steps):
    torch.manual_seed(11)
    model = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 4))
    with torch.no_grad():
        model[2].weight.zero_()
        model[2].bias.copy_(torch.tensor([1.0, 0, 0, 0]))  # start at the identity
    opt = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            q = F.normalize(torch.randn(16, 4), dim=1)
            q[0] = torch.tensor([1.0, 0, 0, 0])  # the canonical pose is in every batch
            pred = F.normalize(model(q), dim=1)
            loss = torch.acos((pred * q).sum(1).abs()).mean()
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
