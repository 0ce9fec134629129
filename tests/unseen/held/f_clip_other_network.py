import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 70
EXPECTED = dict(rules={"clip-broken"}, module=None, causes=None, optimizer="critic", at=1,
                say="the critic's update clips the actor's parameters (copy and paste): the critic steps unclipped")


def train(track, steps):
    torch.manual_seed(92)
    actor = nn.Sequential(nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, 1), nn.Tanh())
    critic = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 1))
    a_opt = torch.optim.Adam(actor.parameters(), 1e-3)
    c_opt = torch.optim.Adam(critic.parameters(), 1e-3)
    clip = torch.nn.utils.clip_grad_norm_
    losses = []
    with track({"actor": a_opt, "critic": c_opt}, {"actor": actor, "critic": critic}):
        for _ in range(steps):
            s, a = torch.randn(64, 3), torch.rand(64, 1) * 2 - 1
            r = -10 * (a - s[:, :1].tanh()) ** 2
            a_loss = -critic(torch.cat([s, actor(s)], 1)).mean()
            a_opt.zero_grad()
            a_loss.backward()
            clip(actor.parameters(), 0.5)
            a_opt.step()
            c_loss = F.mse_loss(critic(torch.cat([s, a], 1)), r)
            c_opt.zero_grad()
            c_loss.backward()
            clip(actor.parameters(), 0.5)
            c_opt.step()
            losses.append(c_loss.item())
    return losses
