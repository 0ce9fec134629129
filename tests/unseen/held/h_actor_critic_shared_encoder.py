import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 100
EXPECTED = None


def train(track, steps):
    torch.manual_seed(299)
    enc = nn.Sequential(nn.Linear(6, 32), nn.ReLU())
    actor = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2), nn.Tanh())
    critic = nn.Sequential(nn.Linear(34, 32), nn.ReLU(), nn.Linear(32, 1))
    c_opt = torch.optim.Adam([*enc.parameters(), *critic.parameters()], 2e-3)
    a_opt = torch.optim.Adam(actor.parameters(), 1e-3)
    losses = []
    with track({"actor": a_opt, "critic": c_opt}, {"encoder": enc, "actor": actor, "critic": critic}):
        for _ in range(steps):
            s = torch.randn(64, 6)
            a = torch.rand(64, 2) * 2 - 1
            r = -(a - s[:, :2].tanh()).pow(2).sum(1, keepdim=True)
            c_opt.zero_grad()
            c_loss = F.mse_loss(critic(torch.cat([enc(s), a], 1)), r)
            c_loss.backward()
            c_opt.step()
            a_opt.zero_grad()
            f = enc(s).detach()  # DrQ: the encoder learns of the critic only
            (-critic(torch.cat([f, actor(f)], 1)).mean()).backward()
            a_opt.step()
            losses.append(c_loss.item())
    return losses
