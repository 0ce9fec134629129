import math

import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 120
EXPECTED = None


def train(track, steps):
    torch.manual_seed(222)
    actor = nn.Sequential(nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, 4))
    critic = nn.Sequential(nn.Linear(5, 48), nn.ReLU(), nn.Linear(48, 1))
    log_alpha = nn.Parameter(torch.zeros(1))
    a_opt = torch.optim.Adam(actor.parameters(), 1e-3)
    c_opt = torch.optim.Adam(critic.parameters(), 2e-3)
    t_opt = torch.optim.Adam([log_alpha], 1e-3)
    losses = []
    with track({"actor": a_opt, "critic": c_opt, "alpha": t_opt}, {"actor": actor, "critic": critic}):
        for _ in range(steps):
            s = torch.randn(64, 3)
            a = torch.rand(64, 2) * 2 - 1
            r = -(a - s[:, :2].tanh()).pow(2).sum(1, keepdim=True)
            c_loss = F.mse_loss(critic(torch.cat([s, a], 1)), r)
            c_opt.zero_grad()
            c_loss.backward()
            c_opt.step()
            mu, ls = actor(s).chunk(2, 1)
            ls = ls.clamp(-5, 2)
            u = mu + ls.exp() * torch.randn_like(mu)
            logp = (-0.5 * ((u - mu) / ls.exp()) ** 2 - ls - 0.919 - 2 * (math.log(2) - u - F.softplus(-2 * u))).sum(1, keepdim=True)
            a_loss = (log_alpha.exp().detach() * logp - critic(torch.cat([s, torch.tanh(u)], 1))).mean()
            a_opt.zero_grad()
            a_loss.backward()
            a_opt.step()
            t_loss = -(log_alpha * (logp.detach() - 2)).mean()
            t_opt.zero_grad()
            t_loss.backward()
            t_opt.step()
            losses.append(c_loss.item())
    return losses
