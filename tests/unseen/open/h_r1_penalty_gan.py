import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 100
EXPECTED = None


def train(track, steps):
    torch.manual_seed(277)
    G = nn.Sequential(nn.Linear(4, 32), nn.LeakyReLU(0.2), nn.Linear(32, 2))
    D = nn.Sequential(nn.utils.spectral_norm(nn.Linear(2, 32)), nn.LeakyReLU(0.2), nn.Linear(32, 1))
    g_opt = torch.optim.Adam(G.parameters(), 2e-3, betas=(0.0, 0.99))
    d_opt = torch.optim.Adam(D.parameters(), 2e-3, betas=(0.0, 0.99))
    losses = []
    with track({"G": g_opt, "D": d_opt}, {"G": G, "D": D}):
        for i in range(steps):
            D.requires_grad_(True)
            real = torch.randn(64, 2) * 0.5 + 1
            fake = G(torch.randn(64, 4))
            d_loss = F.softplus(-D(real)).mean() + F.softplus(D(fake.detach())).mean()
            if i % 4 == 0:
                r = real.clone().requires_grad_(True)
                g = torch.autograd.grad(D(r).sum(), r, create_graph=True)[0]
                d_loss = d_loss + 2 * g.pow(2).sum(1).mean()
            d_opt.zero_grad()
            d_loss.backward()
            d_opt.step()
            D.requires_grad_(False)
            g_opt.zero_grad()
            F.softplus(-D(fake)).mean().backward()
            g_opt.step()
            losses.append((fake.mean() - 1).abs().item())
    return losses
