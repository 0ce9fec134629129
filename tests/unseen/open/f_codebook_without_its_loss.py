import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = dict(rules={"zero"}, module=("codebook",), causes={"detached"}, optimizer="optimizer", at=1,
                say="the straight-through estimator passes the gradient around the codebook, and the codebook's own loss was left out: it is detached")


class Vq(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc = nn.Linear(12, 4)
        self.codebook = nn.Embedding(16, 4)
        self.dec = nn.Linear(4, 12)

    def forward(self, x):
        z = self.enc(x)
        k = torch.cdist(z, self.codebook.weight).argmin(1)
        q = self.codebook(k)
        commit = F.mse_loss(z, q.detach())
        return self.dec(z + (q - z).detach()), commit


def train(track, steps):
    torch.manual_seed(110)
    model = Vq()
    opt = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(64, 3).repeat(1, 4)
            out, commit = model(x)
            loss = F.mse_loss(out, x) + 0.25 * commit
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
