import torch
import torch.nn as nn

STEPS = 150
EXPECTED = None


def train(track, steps):
    torch.manual_seed(226)
    G = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
    D = nn.Sequential(nn.Linear(2, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))
    g_opt = torch.optim.Adam(G.parameters(), 1e-3, betas=(0.5, 0.999))
    d_opt = torch.optim.Adam(D.parameters(), 1e-3, betas=(0.5, 0.999))
    bce = nn.BCEWithLogitsLoss()
    losses = []
    with track({"G": g_opt, "D": d_opt}, {"G": G, "D": D}):
        for _ in range(steps):
            real = torch.randn(64, 2) * 0.5 + 1
            z = torch.randn(64, 4)
            D.zero_grad()
            bce(D(real), torch.ones(64, 1)).backward()
            fake = G(z)
            bce(D(fake.detach()), torch.zeros(64, 1)).backward()
            d_opt.step()
            G.zero_grad()
            loss = bce(D(fake), torch.ones(64, 1))
            loss.backward()
            g_opt.step()
            losses.append((fake.mean() - 1).abs().item())
    return losses
