import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 90
EXPECTED = dict(rules={"zero", "stale"}, module=("D", "D.0", "D.2", None), causes={"frozen", "no-backward"}, optimizer="D", at=31,
                say="D is frozen for the generator's update and from step 31 on not unfrozen again: its optimizer steps without any gradient")


def train(track, steps):
    torch.manual_seed(104)
    G = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
    D = nn.Sequential(nn.Linear(2, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))
    g_opt = torch.optim.Adam(G.parameters(), 1e-3, betas=(0.5, 0.9))
    d_opt = torch.optim.Adam(D.parameters(), 1e-3, betas=(0.5, 0.9))
    losses = []
    with track({"G": g_opt, "D": d_opt}, {"G": G, "D": D}):
        for i in range(1, steps + 1):
            real = torch.randn(64, 2) * 0.5 + 1
            d_opt.zero_grad()
            d_loss = F.softplus(-D(real)).mean() + F.softplus(D(G(torch.randn(64, 4)).detach())).mean()
            if d_loss.requires_grad:
                d_loss.backward()
            d_opt.step()
            D.requires_grad_(False)
            g_opt.zero_grad()
            F.softplus(-D(G(torch.randn(64, 4)))).mean().backward()
            g_opt.step()
            if i < 30:
                D.requires_grad_(True)
            losses.append(d_loss.item())
    return losses
