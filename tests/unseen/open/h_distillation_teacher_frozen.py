import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 90
EXPECTED = None


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.student = nn.Sequential(nn.Linear(10, 24), nn.ReLU(), nn.Linear(24, 4))
        self.teacher = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 4)).requires_grad_(False)


def train(track, steps):
    torch.manual_seed(275)
    net = Pair()
    opt = torch.optim.AdamW(filter(lambda p: p.requires_grad, net.parameters()), 5e-3)
    losses = []
    with track(opt, net):
        for _ in range(steps):
            x = torch.randn(64, 10)
            with torch.no_grad():
                soft = (4 * net.teacher(x)).softmax(1)
            loss = F.kl_div(net.student(x).log_softmax(1), soft, reduction="batchmean")
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
