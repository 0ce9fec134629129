import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 100
EXPECTED = None


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(8, 32), nn.ReLU())
        self.h1, self.h2 = nn.Linear(32, 1), nn.Linear(32, 1)
        self.log_vars = nn.Parameter(torch.zeros(2))


def train(track, steps):
    torch.manual_seed(281)
    net = Net()
    opt = torch.optim.Adam(net.parameters(), 3e-3)
    losses = []
    with track(opt, net):
        for _ in range(steps):
            x = torch.randn(64, 8)
            h = net.trunk(x)
            l1 = F.mse_loss(net.h1(h), x[:, :1] + 0.5 * torch.randn(64, 1))
            l2 = F.mse_loss(net.h2(h), 3 * x[:, 1:2] + torch.randn(64, 1))
            loss = (torch.exp(-net.log_vars[0]) * l1 + torch.exp(-net.log_vars[1]) * l2 + net.log_vars.sum()) / 2
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append((l1 + l2).item())
    return losses
