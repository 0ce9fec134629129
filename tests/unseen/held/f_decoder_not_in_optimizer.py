import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = dict(rules={"zero"}, module=("decoder", "decoder.0", "decoder.2"), causes={"not-in-optimizer"}, optimizer="optimizer", at=1,
                say="only the encoder's parameters went to the optimizer (the decoder was added to the model later): the decoder is trained by nobody")


class Vae(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 8))
        self.decoder = nn.Sequential(nn.Linear(4, 24), nn.ReLU(), nn.Linear(24, 12))

    def forward(self, x):
        mu, lv = self.encoder(x).chunk(2, 1)
        z = mu + (0.5 * lv).exp() * torch.randn_like(mu)
        return self.decoder(z), mu, lv


def train(track, steps):
    torch.manual_seed(78)
    vae = Vae()
    opt = torch.optim.Adam(vae.encoder.parameters(), 1e-3)
    losses = []
    with track(opt, vae):
        for _ in range(steps):
            x = torch.randn(32, 3).repeat(1, 4)
            out, mu, lv = vae(x)
            loss = F.mse_loss(out, x, reduction="none").sum(1).mean() - 0.05 * (1 + lv - mu ** 2 - lv.exp()).sum(1).mean()
            vae.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
