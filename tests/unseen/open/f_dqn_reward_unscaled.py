import copy

import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 120
EXPECTED = dict(rules={"explosion"}, module=None, causes=None, optimizer="optimizer", at=85,
                say="an environment's crash penalty of -1e5 enters the replay, and with an MSE loss the critic's gradient explodes")


def train(track, steps):
    torch.manual_seed(17)
    q = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 2))
    target = copy.deepcopy(q)
    opt = torch.optim.Adam(q.parameters(), 1e-3)
    losses = []
    with track(opt, q):
        for i in range(1, steps + 1):
            s, s2 = torch.randn(32, 4), torch.randn(32, 4)
            a = torch.randint(0, 2, (32, 1))
            r = s[:, :1] * (a * 2 - 1)
            if i >= 85:
                r[torch.rand(32) < 0.2] = -1e5
            with torch.no_grad():
                y = r + 0.9 * target(s2).max(1, keepdim=True)[0]
            loss = F.mse_loss(q(s).gather(1, a), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            if i % 10 == 0:
                target.load_state_dict(q.state_dict())
            losses.append(loss.item())
    return losses
