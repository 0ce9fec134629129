import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = dict(rules={"zero"}, module=("actor", "actor.0", "actor.2"), causes={"zero-factor", "zero-loss", "constant"}, optimizer="actor", at=1,
                say="the advantage is normalised over an episode of one step: a - a.mean() is 0, and the policy's loss is 0 times its log-probability")


def train(track, steps):
    torch.manual_seed(47)
    actor = nn.Sequential(nn.Linear(5, 32), nn.Tanh(), nn.Linear(32, 3))
    critic = nn.Sequential(nn.Linear(5, 32), nn.Tanh(), nn.Linear(32, 1))
    a_opt = torch.optim.Adam(actor.parameters(), 1e-3)
    c_opt = torch.optim.Adam(critic.parameters(), 1e-3)
    losses = []
    with track({"actor": a_opt, "critic": c_opt}, {"actor": actor, "critic": critic}):
        for _ in range(steps):
            s = torch.randn(1, 5)
            dist = torch.distributions.Categorical(logits=actor(s))
            a = dist.sample()
            ret = (a == s[:, :3].argmax(1)).float()
            v = critic(s).squeeze(1)
            adv = (ret - v).detach()
            adv = (adv - adv.mean()) / (adv.std(unbiased=False) + 1e-8)
            a_loss = -(adv * dist.log_prob(a)).mean()
            c_loss = F.mse_loss(v, ret)
            a_opt.zero_grad()
            a_loss.backward()
            a_opt.step()
            c_opt.zero_grad()
            c_loss.backward()
            c_opt.step()
            losses.append(c_loss.item())
    return losses
