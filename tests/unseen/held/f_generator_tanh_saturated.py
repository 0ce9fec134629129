import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = dict(rules={"zero", "vanishing"}, module=("G", "G.0", "G.2"), causes={"saturated-tanh"}, optimizer="G", at=1,
                say="the generator's last layer was initialised with std 50: all pixels are exactly +-1 behind tanh, nothing comes back")


def train(track, steps):
    torch.manual_seed(39)
    G = nn.Sequential(nn.Linear(8, 32), nn.LeakyReLU(0.2), nn.Linear(32, 4), nn.Tanh())
    D = nn.Sequential(nn.Linear(4, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))
    nn.init.normal_(G[2].weight, std=3.0)
    with torch.no_grad():
        G[2].bias.copy_(torch.tensor([400.0, -400, 400, -400]))
    g_opt = torch.optim.Adam(G.parameters(), 2e-4, betas=(0.5, 0.999))
    d_opt = torch.optim.Adam(D.parameters(), 2e-4, betas=(0.5, 0.999))
    bce = F.binary_cross_entropy_with_logits
    losses = []
    with track({"G": g_opt, "D": d_opt}, {"G": G, "D": D}):
        for _ in range(steps):
            real = torch.randn(32, 4) * 0.3
            fake = G(torch.randn(32, 8))
            d_opt.zero_grad()
            d_loss = bce(D(real), torch.ones(32, 1)) + bce(D(fake.detach()), torch.zeros(32, 1))
            d_loss.backward()
            d_opt.step()
            g_opt.zero_grad()
            bce(D(fake), torch.ones(32, 1)).backward()
            g_opt.step()
            losses.append(d_loss.item())
    return losses
