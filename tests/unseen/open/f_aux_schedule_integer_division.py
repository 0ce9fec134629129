import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = dict(rules={"zero"}, module=("aux",), causes={"zero-loss", "zero-factor"}, optimizer="optimizer", at=1,
                say="the auxiliary weight is step // total, which is 0 for the whole run: the aux head's loss is multiplied by 0")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(10, 32), nn.ReLU())
        self.main = nn.Linear(32, 1)
        self.aux = nn.Linear(32, 10)


def train(track, steps):
    torch.manual_seed(46)
    net = Net()
    opt = torch.optim.Adam(net.parameters(), 1e-3)
    total = 1000
    losses = []
    with track(opt, net):
        for i in range(steps):
            x = torch.randn(32, 10)
            h = net.body(x)
            weight = i // total
            loss = F.mse_loss(net.main(h), x[:, :2].sum(1, keepdim=True)) + weight * F.mse_loss(net.aux(h), x)
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
