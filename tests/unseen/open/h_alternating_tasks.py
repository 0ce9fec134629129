import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 100
EXPECTED = None


class Mtl(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(8, 32), nn.ReLU())
        self.a, self.b = nn.Linear(32, 2), nn.Linear(32, 1)


def train(track, steps):
    torch.manual_seed(278)
    net = Mtl()
    opt = torch.optim.AdamW(net.parameters(), 4e-3)
    losses = []
    with track(opt, net):
        for i in range(steps):
            x = torch.randn(48, 8)
            h = net.trunk(x)
            if i % 2 == 0:  # one task's batch at a time: the other head has no gradient in this step
                loss = F.cross_entropy(net.a(h), (x[:, 0] > 0).long())
            else:
                loss = F.mse_loss(net.b(h), x[:, 1:2])
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
