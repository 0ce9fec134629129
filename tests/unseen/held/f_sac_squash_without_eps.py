import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 80
EXPECTED = dict(rules={"nonfinite"}, module=None, causes={"nonfinite-loss", "nonfinite-op"}, optimizer="actor", at=1,
                say="log(1 - tanh(u)^2) has no eps: with a wide policy tanh is exactly 1, and the log is of 0")


def train(track, steps):
    torch.manual_seed(12)
    actor = nn.Sequential(nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, 4))
    critic = nn.Sequential(nn.Linear(5, 32), nn.ReLU(), nn.Linear(32, 1))
    with torch.no_grad():
        actor[2].bias[2:] = 2.0  # log_std starts at its upper bound
    a_opt = torch.optim.Adam(actor.parameters(), 3e-4)
    c_opt = torch.optim.Adam(critic.parameters(), 3e-4)
    losses = []
    with track({"actor": a_opt, "critic": c_opt}, {"actor": actor, "critic": critic}):
        for _ in range(steps):
            s = torch.randn(64, 3)
            a = torch.rand(64, 2) * 2 - 1
            r = -(a - s[:, :2].tanh()).pow(2).sum(1, keepdim=True)
            c_loss = F.mse_loss(critic(torch.cat([s, a], 1)), r)
            c_opt.zero_grad()
            c_loss.backward()
            c_opt.step()
            mu, log_std = actor(s).chunk(2, 1)
            u = mu + log_std.exp() * torch.randn_like(mu)
            act = torch.tanh(u)
            logp = torch.distributions.Normal(mu, log_std.exp(), validate_args=False).log_prob(u) - torch.log(1 - act ** 2)
            a_loss = (0.2 * logp.sum(1, keepdim=True) - critic(torch.cat([s, act], 1))).mean()
            a_opt.zero_grad()
            a_loss.backward()
            a_opt.step()
            losses.append(c_loss.item())
    return losses
