import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 70
EXPECTED = dict(rules={"zero"}, module=("embed", "embed.0", "embed.2", None), causes={"clamped", "dead-relu", "zero-loss"}, optimizer="optimizer", at=1,
                say="the triplet loss's margin is subtracted: its hinge is at 0 for every triplet, so that no gradient flows")


def train(track, steps):
    torch.manual_seed(48)
    model = nn.Sequential()
    model.add_module("embed", nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 8)))
    opt = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            a = torch.randn(32, 10)
            p, n = a + 0.3 * torch.randn(32, 10), torch.randn(32, 10)
            ea, ep, en = (F.normalize(model(t), dim=1) for t in (a, p, n))
            dp, dn = (ea - ep).pow(2).sum(1), (ea - en).pow(2).sum(1)
            loss = (dp - dn - 5.0).clamp(min=0).mean()
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
