import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 150
EXPECTED = None


def train(track, steps):
    torch.manual_seed(292)
    net = nn.ModuleDict({"lstm": nn.LSTM(4, 32, batch_first=True), "out": nn.Linear(32, 1)})
    opt = torch.optim.Adam(net.parameters(), 5e-3)
    losses = []
    with track(opt, net):
        for _ in range(steps):
            x = torch.randn(16, 8, 4)
            loss = F.mse_loss(net["out"](net["lstm"](x)[0][:, -1]), 2 * x.mean(1)[:, :1] * 8 ** 0.5)
            opt.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 0.5)
            opt.step()
            losses.append(loss.item())
    return losses
