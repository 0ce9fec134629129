import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 80
EXPECTED = dict(rules={"leaked"}, module=None, causes={"leaked", None}, optimizer="D", at=2,
                say="D's gradients of the generator's loss are not zeroed before D's own backward: D steps on a sum of both")


def train(track, steps):
    torch.manual_seed(84)
    G = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
    D = nn.Sequential(nn.Linear(2, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))
    g_opt = torch.optim.Adam(G.parameters(), 1e-3, betas=(0.5, 0.9))
    d_opt = torch.optim.Adam(D.parameters(), 1e-3, betas=(0.5, 0.9))
    losses = []
    with track({"G": g_opt, "D": d_opt}, {"G": G, "D": D}):
        for _ in range(steps):
            real = torch.randn(64, 2) * 0.5 + 1
            fake = G(torch.randn(64, 4))
            d_loss = F.softplus(-D(real)).mean() + F.softplus(D(fake.detach())).mean()
            d_loss.backward()
            d_opt.step()
            d_opt.zero_grad()
            g_opt.zero_grad()
            F.softplus(-D(fake)).mean().backward()
            g_opt.step()
            losses.append(d_loss.item())
    return losses
