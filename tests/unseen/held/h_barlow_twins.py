import torch
import torch.nn as nn

STEPS = 80
EXPECTED = None


def train(track, steps):
    torch.manual_seed(287)
    net = nn.Sequential(nn.Linear(16, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Linear(48, 16))
    opt = torch.optim.AdamW(net.parameters(), 2e-3)
    losses = []
    with track(opt, net):
        for _ in range(steps):
            x = torch.randn(64, 16)
            za, zb = net(x + 0.2 * torch.randn_like(x)), net(x + 0.2 * torch.randn_like(x))
            za, zb = (za - za.mean(0)) / (za.std(0) + 1e-5), (zb - zb.mean(0)) / (zb.std(0) + 1e-5)
            c = za.T @ zb / 64
            on = (torch.diagonal(c) - 1).pow(2).sum()
            off = (c - torch.diag(torch.diagonal(c))).pow(2).sum()
            loss = on + 0.01 * off
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
