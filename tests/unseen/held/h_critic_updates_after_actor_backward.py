import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 100
EXPECTED = None


def train(track, steps):
    torch.manual_seed(300)
    actor = nn.Sequential(nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, 1), nn.Tanh())
    critic = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 1))
    a_opt = torch.optim.Adam(actor.parameters(), 1e-3)
    c_opt = torch.optim.Adam(critic.parameters(), 2e-3)
    losses = []
    with track({"actor": a_opt, "critic": c_opt}, {"actor": actor, "critic": critic}):
        for _ in range(steps):
            s, a = torch.randn(64, 3), torch.rand(64, 1) * 2 - 1
            r = -(a - s[:, :1].tanh()) ** 2
            a_loss = -critic(torch.cat([s, actor(s)], 1)).mean()
            a_opt.zero_grad()
            a_loss.backward(inputs=list(actor.parameters()))
            a_opt.step()
            c_loss = F.mse_loss(critic(torch.cat([s, a], 1)), r)
            c_opt.zero_grad()
            c_loss.backward()
            c_opt.step()
            losses.append(c_loss.item())
    return losses
