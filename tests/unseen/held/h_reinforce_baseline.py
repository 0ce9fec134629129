import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 120
EXPECTED = None


def train(track, steps):
    torch.manual_seed(225)
    pi = nn.Sequential(nn.Linear(4, 24), nn.Tanh(), nn.Linear(24, 3))
    base = nn.Linear(4, 1)
    p_opt, b_opt = torch.optim.Adam(pi.parameters(), 5e-3), torch.optim.Adam(base.parameters(), 5e-3)
    losses = []
    with track({"pi": p_opt, "baseline": b_opt}, {"pi": pi, "baseline": base}):
        for _ in range(steps):
            s = torch.randn(32, 4)
            d = torch.distributions.Categorical(logits=pi(s))
            a = d.sample()
            r = (a == s[:, :3].argmax(1)).float()
            v = base(s)[:, 0]
            p_opt.zero_grad()
            b_opt.zero_grad()
            (-(r - v).detach() * d.log_prob(a)).mean().backward()
            F.mse_loss(v, r).backward()
            p_opt.step()
            b_opt.step()
            losses.append(-r.mean().item())
    return losses
