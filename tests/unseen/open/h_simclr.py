import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 100
EXPECTED = None


def train(track, steps):
    torch.manual_seed(210)
    model = nn.Sequential()
    model.add_module("encoder", nn.Sequential(nn.Linear(16, 48), nn.BatchNorm1d(48), nn.ReLU()))
    model.add_module("projector", nn.Sequential(nn.Linear(48, 24), nn.ReLU(), nn.Linear(24, 8)))
    opt = torch.optim.AdamW(model.parameters(), 1e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(32, 16)
            z = F.normalize(model(torch.cat([x + 0.2 * torch.randn_like(x), x + 0.2 * torch.randn_like(x)])), dim=1)
            sim = (z @ z.T / 0.2).masked_fill(torch.eye(64, dtype=torch.bool), float("-inf"))
            loss = F.cross_entropy(sim, torch.arange(64).roll(32))
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
