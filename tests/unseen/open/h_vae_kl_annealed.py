import torch
import torch.nn as nn

STEPS = 120
EXPECTED = None


class Vae(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc = nn.Sequential(nn.Linear(16, 32), nn.ReLU())
        self.mu, self.logvar = nn.Linear(32, 4), nn.Linear(32, 4)
        self.dec = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 16))

    def forward(self, x):
        h = self.enc(x)
        mu, lv = self.mu(h), self.logvar(h)
        return self.dec(mu + (0.5 * lv).exp() * torch.randn_like(mu)), mu, lv


def train(track, steps):
    torch.manual_seed(228)
    vae = Vae()
    opt = torch.optim.Adam(vae.parameters(), 3e-3)
    losses = []
    with track(opt, vae):
        for i in range(steps):
            x = torch.randn(64, 2).repeat(1, 8)
            out, mu, lv = vae(x)
            beta = min(1.0, i / 80)
            rec = (out - x).pow(2).sum(1).mean()
            loss = rec - 0.5 * beta * (1 + lv - mu ** 2 - lv.exp()).sum(1).mean()
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(rec.item())
    return losses
