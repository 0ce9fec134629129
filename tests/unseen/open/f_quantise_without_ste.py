import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = dict(rules={"zero"}, module=("encoder", "encoder.0", "encoder.2"), causes={"constant"}, optimizer="optimizer", at=1,
                say="torch.round has derivative 0 everywhere, and the straight-through trick was forgotten: the encoder does not train")


class Codec(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8))
        self.decoder = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 16))

    def forward(self, x):
        z = self.encoder(x) * 8
        return self.decoder(torch.round(z) / 8)


def train(track, steps):
    torch.manual_seed(51)
    model = Codec()
    opt = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(32, 4).repeat(1, 4)
            loss = F.mse_loss(model(x), x)
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
