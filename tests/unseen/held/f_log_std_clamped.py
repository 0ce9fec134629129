import math

import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 70
EXPECTED = dict(rules={"zero"}, module=("actor.log_std",), causes={"clamped"}, optimizer="actor", at=1,
                say="log_std starts at 6, above the clamp's upper end of 2: the clamp lets no gradient through, the policy's width cannot learn")


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 32), nn.ReLU())
        self.mu = nn.Linear(32, 2)
        self.log_std = nn.Linear(32, 2)
        nn.init.constant_(self.log_std.bias, 6.0)


def train(track, steps):
    torch.manual_seed(60)
    actor = Policy()
    critic = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 1))
    a_opt = torch.optim.Adam(actor.parameters(), 1e-3)
    c_opt = torch.optim.Adam(critic.parameters(), 1e-3)
    losses = []
    with track({"actor": a_opt, "critic": c_opt}, {"actor": actor, "critic": critic}):
        for _ in range(steps):
            s = torch.randn(64, 4)
            a = torch.rand(64, 2) * 2 - 1
            r = -(a - s[:, :2].tanh()).pow(2).sum(1, keepdim=True)
            c_loss = F.mse_loss(critic(torch.cat([s, a], 1)), r)
            c_opt.zero_grad()
            c_loss.backward()
            c_opt.step()
            h = actor.body(s)
            mu, log_std = actor.mu(h), actor.log_std(h).clamp(-20, 2)
            u = mu + log_std.exp() * torch.randn_like(mu)
            logp = (-0.5 * ((u - mu) / log_std.exp()) ** 2 - log_std - 2 * (math.log(2) - u - F.softplus(-2 * u))).sum(1, keepdim=True)
            a_loss = (0.1 * logp - critic(torch.cat([s, torch.tanh(u)], 1))).mean()
            a_opt.zero_grad()
            a_loss.backward()
            a_opt.step()
            losses.append(c_loss.item())
    return losses
