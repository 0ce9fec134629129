import torch
import torch.nn as nn

STEPS = 120
EXPECTED = None


def train(track, steps):
    torch.manual_seed(270)
    model = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 9))
    opt = torch.optim.Adam(model.parameters(), 5e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            y = torch.rand(64, 1) * 4 - 2
            x = y + torch.sin(2 * y) + 0.3 * torch.randn(64, 1)
            logit, mu, ls = model(x).chunk(3, 1)
            ls = ls.clamp(-3, 2)
            logp = logit.log_softmax(1) - 0.5 * ((y - mu) / ls.exp()) ** 2 - ls
            loss = -torch.logsumexp(logp, 1).mean()
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
