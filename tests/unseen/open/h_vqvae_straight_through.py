import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 100
EXPECTED = None


class Vq(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc = nn.Linear(12, 4)
        self.codebook = nn.Embedding(16, 4)
        self.dec = nn.Linear(4, 12)
        nn.init.uniform_(self.codebook.weight, -0.5, 0.5)

    def forward(self, x):
        z = self.enc(x)
        q = self.codebook(torch.cdist(z, self.codebook.weight).argmin(1))
        aux = F.mse_loss(q, z.detach()) + 0.25 * F.mse_loss(z, q.detach())
        return self.dec(z + (q - z).detach()), aux


def train(track, steps):
    torch.manual_seed(229)
    model = Vq()
    opt = torch.optim.Adam(model.parameters(), 5e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(64, 2).repeat(1, 6)
            out, aux = model(x)
            rec = F.mse_loss(out, x)
            loss = rec + aux
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(rec.item())
    return losses
