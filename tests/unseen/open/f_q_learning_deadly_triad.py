import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 150
EXPECTED = dict(rules={"growth", "explosion", "nonfinite"}, module=None, causes=None, optimizer="optimizer", at=1, patience=149,
                say="Q-learning with neither target network nor a discount below 1 (1.05) feeds on its own values: they double every few steps without pause")


def train(track, steps):
    torch.manual_seed(18)
    q = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 3))
    opt = torch.optim.SGD(q.parameters(), 0.01)
    losses = []
    with track(opt, q):
        for _ in range(steps):
            s = torch.randn(64, 4) + 1
            s2 = 1.1 * s
            a = torch.randint(0, 3, (64, 1))
            r = torch.ones(64, 1)
            with torch.no_grad():
                y = r + 1.05 * q(s2).max(1, keepdim=True)[0]
            loss = F.mse_loss(q(s).gather(1, a), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
