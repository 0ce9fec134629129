import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 80
EXPECTED = dict(rules={"leaked"}, module=None, causes={"leaked", None}, optimizer="critic", at=1,
                say="all zero_grad first, then both backwards, then actor.step() and critic.step(): the critic applies what the actor's loss wrote into it")


def train(track, steps):
    torch.manual_seed(86)
    actor = nn.Sequential(nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, 2))
    critic = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 1))
    a_opt = torch.optim.Adam(actor.parameters(), 1e-3)
    c_opt = torch.optim.Adam(critic.parameters(), 1e-3)
    losses = []
    with track({"actor": a_opt, "critic": c_opt}, {"actor": actor, "critic": critic}):
        for _ in range(steps):
            s, a = torch.randn(64, 3), torch.rand(64, 1) * 2 - 1
            r = -(a - s[:, :1].tanh()) ** 2
            mu, log_std = actor(s).chunk(2, 1)
            pi = torch.tanh(mu + log_std.clamp(-5, 1).exp() * torch.randn_like(mu))
            c_loss = F.mse_loss(critic(torch.cat([s, a], 1)), r)
            a_loss = -critic(torch.cat([s, pi], 1)).mean() - 0.05 * log_std.mean()
            a_opt.zero_grad()
            c_opt.zero_grad()
            c_loss.backward()
            a_loss.backward()
            a_opt.step()
            c_opt.step()
            losses.append(c_loss.item())
    return losses
