import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = dict(rules={"lost"}, module=None, causes={"zeroed", "lost", None}, optimizer="optimizer", at=1,
                say="the loop over the tasks zeroes the shared gradients before each task's backward: only the last task trains the trunk")


class Mtl(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(8, 32), nn.ReLU())
        self.heads = nn.ModuleList([nn.Linear(32, 1) for _ in range(3)])


def train(track, steps):
    torch.manual_seed(89)
    net = Mtl()
    opt = torch.optim.Adam(net.parameters(), 2e-3)
    losses = []
    with track(opt, net):
        for _ in range(steps):
            x = torch.randn(32, 8)
            for k, head in enumerate(net.heads):
                net.trunk.zero_grad()
                head.zero_grad()
                loss = F.mse_loss(head(net.trunk(x)), x[:, k:k + 1] * 2)
                loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
