import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = dict(rules={"zero"}, module=("phi", "phi.0", "phi.2"), causes={"underflow", "zero-factor", "zero-weight"}, optimizer="optimizer", at=1,
                say="the RBF kernel of unscaled features is exp(-thousands) = 0 in float32: it underflows, and no gradient gets to the features")


class Rbf(nn.Module):
    def __init__(self):
        super().__init__()
        self.phi = nn.Sequential(nn.Linear(6, 24), nn.LeakyReLU(0.2), nn.Linear(24, 8))
        self.lin = nn.Linear(6, 1)
        self.alpha = nn.Parameter(0.1 * torch.randn(10))
        self.register_buffer("centres", 100 * torch.randn(10, 8))

    def forward(self, x):
        d2 = (self.phi(x)[:, None] - self.centres).pow(2).sum(-1)
        return torch.exp(-d2) @ self.alpha[:, None] + self.lin(x)


def train(track, steps):
    torch.manual_seed(109)
    model = Rbf()
    opt = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(32, 6)
            loss = F.mse_loss(model(x), x[:, :1] ** 2 + x[:, 1:2])
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
