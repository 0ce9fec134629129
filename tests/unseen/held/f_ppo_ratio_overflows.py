import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 80
EXPECTED = dict(rules={"nonfinite", "explosion"}, module=None, causes={"nonfinite-loss", "nonfinite-op", None}, optimizer="optimizer", at=50,
                say="the old log-probabilities are summed over the wrong axis from step 50 on, so that exp(new - old) overflows to inf")


class ActorCritic(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 32), nn.Tanh())
        self.mu = nn.Linear(32, 3)
        self.v = nn.Linear(32, 1)
        self.log_std = nn.Parameter(torch.zeros(3))


def train(track, steps):
    torch.manual_seed(14)
    ac = ActorCritic()
    opt = torch.optim.Adam(ac.parameters(), 3e-4)
    losses = []
    with track(opt, ac):
        for i in range(1, steps + 1):
            s = torch.randn(64, 6)
            with torch.no_grad():
                d = torch.distributions.Normal(ac.mu(ac.body(s)), ac.log_std.exp(), validate_args=False)
                a = d.loc + d.scale * torch.randn_like(d.loc)
                lp = d.log_prob(a)
                old = lp.sum(1) if i < 50 else lp.sum(0).sum().expand(64)
            ret = -(a - s[:, :3]).pow(2).sum(1)
            h = ac.body(s)
            new = torch.distributions.Normal(ac.mu(h), ac.log_std.exp(), validate_args=False).log_prob(a).sum(1)
            v = ac.v(h).squeeze(1)
            adv = (ret - v).detach()
            adv = (adv - adv.mean()) / (adv.std() + 1e-8)
            ratio = (new - old).exp()
            loss = -torch.min(ratio * adv, ratio.clamp(0.8, 1.2) * adv).mean() + 0.5 * F.mse_loss(v, ret)
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
