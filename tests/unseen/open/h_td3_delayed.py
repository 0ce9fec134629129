import copy

import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 150
EXPECTED = None


def train(track, steps):
    torch.manual_seed(221)
    actor = nn.Sequential(nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, 1), nn.Tanh())
    c1, c2 = (nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 1)) for _ in range(2))
    at, t1, t2 = copy.deepcopy(actor), copy.deepcopy(c1), copy.deepcopy(c2)
    a_opt = torch.optim.Adam(actor.parameters(), 1e-3)
    c_opt = torch.optim.Adam([*c1.parameters(), *c2.parameters()], 1e-3)
    losses = []
    with track({"actor": a_opt, "critic": c_opt}, {"actor": actor, "critic1": c1, "critic2": c2}):
        for i in range(steps):
            s = torch.randn(64, 3)
            with torch.no_grad():
                a = (actor(s) + 0.3 * torch.randn(64, 1)).clamp(-1, 1)
                s2 = 0.8 * s + 0.2 * torch.randn(64, 3)
                r = -(a - s[:, :1].tanh()) ** 2
                a2 = (at(s2) + (0.2 * torch.randn(64, 1)).clamp(-0.5, 0.5)).clamp(-1, 1)
                sa2 = torch.cat([s2, a2], 1)
                y = r + 0.9 * torch.min(t1(sa2), t2(sa2))
            sa = torch.cat([s, a], 1)
            c_loss = F.mse_loss(c1(sa), y) + F.mse_loss(c2(sa), y)
            c_opt.zero_grad()
            c_loss.backward()
            c_opt.step()
            if i % 2 == 1:
                a_loss = -c1(torch.cat([s, actor(s)], 1)).mean()
                a_opt.zero_grad()
                a_loss.backward()
                a_opt.step()
                with torch.no_grad():
                    for net, tgt in ((actor, at), (c1, t1), (c2, t2)):
                        for p, q in zip(net.parameters(), tgt.parameters()):
                            q.lerp_(p, 0.02)
            losses.append(c_loss.item())
    return losses
