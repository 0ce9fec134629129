import copy

import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = None
DOUBT = "the gradients are written by hand (p.grad = ...), by no backward: healthy, but by the letter of `stale` no backward has written them"

def train(track, steps):
    torch.manual_seed(257)
    net = nn.Sequential(nn.Linear(1, 24), nn.Tanh(), nn.Linear(24, 1))
    meta = torch.optim.SGD(net.parameters(), 0.5)
    losses = []
    with track(meta, net):
        for _ in range(steps):
            a = 1 + 0.3 * torch.randn(1)
            fast = copy.deepcopy(net)
            inner = torch.optim.SGD(fast.parameters(), 0.05)
            for k in range(5):
                x = torch.randn(16, 1)
                l = F.mse_loss(fast(x), a * x)
                inner.zero_grad()
                l.backward()
                inner.step()
                if k == 0:
                    losses.append(l.item())
            meta.zero_grad()
            with torch.no_grad():
                for p, q in zip(net.parameters(), fast.parameters()):
                    p.grad = p - q
            meta.step()
    return losses
