import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 80
EXPECTED = None


class Aux(nn.Module):
    def __init__(self):
        super().__init__()
        self.l1 = nn.Sequential(nn.Linear(10, 32), nn.ReLU())
        self.aux = nn.Linear(32, 3)
        self.l2 = nn.Sequential(nn.Linear(32, 32), nn.ReLU())
        self.head = nn.Linear(32, 3)


def train(track, steps):
    torch.manual_seed(279)
    net = Aux()
    opt = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, nesterov=True)
    losses = []
    with track(opt, net):
        for _ in range(steps):
            x = torch.randn(64, 10)
            y = x[:, :3].argmax(1)
            h = net.l1(x)
            loss = F.cross_entropy(net.head(net.l2(h)), y) + 0.3 * F.cross_entropy(net.aux(h), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
