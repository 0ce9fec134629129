import torch
import torch.nn as nn

STEPS = 96
EXPECTED = None


def train(track, steps):
    torch.manual_seed(224)
    actor = nn.Sequential(nn.Linear(4, 24), nn.Tanh(), nn.Linear(24, 2))
    log_std = nn.Parameter(torch.zeros(2))
    opt = torch.optim.Adam([*actor.parameters(), log_std], 5e-3)
    losses, done = [], 0
    with track(opt, actor):
        while done < steps:
            s = torch.randn(64, 4)
            with torch.no_grad():
                d = torch.distributions.Normal(actor(s), log_std.exp())
                a = d.sample()
                old = d.log_prob(a).sum(1)
                r = -(a - s[:, :2]).pow(2).sum(1)
                adv = (r - r.mean()) / r.std()
            for _ in range(8):  # the last epochs run with many ratios beyond the clip
                lp = torch.distributions.Normal(actor(s), log_std.exp()).log_prob(a).sum(1)
                ratio = (lp - old).exp()
                loss = -torch.min(ratio * adv, ratio.clamp(0.9, 1.1) * adv).mean()
                opt.zero_grad()
                loss.backward()
                opt.step()
                done += 1
            losses.append(-r.mean().item())
    return losses
