import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 80
EXPECTED = dict(rules={"zero"}, module=("decoder", "decoder.0", "decoder.2", "encoder", "encoder.0", None), causes={"clamped"}, optimizer="optimizer", at=1,
                say="the decoder's output is clamped to 0..1 but starts at 5 throughout (targets of another scale): no gradient gets past the clamp")


class Ae(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(16, 8), nn.ReLU())
        self.decoder = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 16))
        self.cls = nn.Linear(8, 2)
        nn.init.constant_(self.decoder[2].bias, 5.0)


def train(track, steps):
    torch.manual_seed(62)
    ae = Ae()
    opt = torch.optim.Adam(ae.parameters(), 1e-3)
    losses = []
    with track(opt, ae):
        for _ in range(steps):
            x = torch.rand(32, 16)
            z = ae.encoder(x)
            recon = torch.clamp(ae.decoder(z), 0.0, 1.0)
            loss = F.mse_loss(recon, x) + 0.1 * F.cross_entropy(ae.cls(z), (x[:, 0] > 0.5).long())
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
