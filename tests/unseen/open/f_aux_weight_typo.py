import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 80
EXPECTED = dict(rules={"vanishing"}, module=("aux_head",), causes=None, optimizer="optimizer", at=1,
                say="the auxiliary loss's weight reads 1e-10 instead of 1e-1: its head gets a gradient ten orders below the rest")


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(12, 32), nn.ReLU())
        self.cls_head = nn.Linear(32, 4)
        self.aux_head = nn.Linear(32, 12)


def train(track, steps):
    torch.manual_seed(33)
    net = Two()
    opt = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9)
    losses = []
    with track(opt, net):
        for _ in range(steps):
            x = torch.randn(32, 12)
            h = net.body(x)
            loss = F.cross_entropy(net.cls_head(h), x[:, :4].argmax(1)) + 1e-10 * F.mse_loss(net.aux_head(h), x)
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
