import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 90
EXPECTED = None


def train(track, steps):
    torch.manual_seed(268)
    net = nn.ModuleDict({"rnn": nn.GRU(1, 24, batch_first=True), "out": nn.Linear(24, 1)})
    opt = torch.optim.Adam(net.parameters(), 5e-3)
    losses = []
    with track(opt, net):
        for i in range(steps):
            n = 4 + i // 10
            x = torch.randn(32, n, 1)
            loss = F.mse_loss(net["out"](net["rnn"](x)[0][:, -1]), x.mean(1) * n ** 0.5)
            opt.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            opt.step()
            losses.append(loss.item())
    return losses
