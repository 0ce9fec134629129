import torch
import torch.nn as nn

STEPS = 60
EXPECTED = None


def train(track, steps):
    torch.manual_seed(227)
    G = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
    D = nn.Sequential(nn.Linear(2, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))
    g_opt = torch.optim.Adam(G.parameters(), 2e-3, betas=(0.0, 0.9))
    d_opt = torch.optim.Adam(D.parameters(), 2e-3, betas=(0.0, 0.9))
    losses = []
    with track({"G": g_opt, "D": d_opt}, {"G": G, "D": D}):
        for _ in range(steps):
            for _ in range(5):
                real = torch.randn(32, 2) * 0.5 + 1
                fake = G(torch.randn(32, 4)).detach()
                mix = torch.lerp(real, fake, torch.rand(32, 1)).requires_grad_(True)
                g = torch.autograd.grad(D(mix).sum(), mix, create_graph=True)[0]
                d_loss = D(fake).mean() - D(real).mean() + 10 * (g.norm(dim=1) - 1).pow(2).mean()
                d_opt.zero_grad()
                d_loss.backward()
                d_opt.step()
            g_opt.zero_grad()
            out = G(torch.randn(32, 4))
            (-D(out).mean()).backward()
            g_opt.step()
            losses.append((out.mean() - 1).abs().item())
    return losses
