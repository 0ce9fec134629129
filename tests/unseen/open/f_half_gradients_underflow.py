import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = dict(rules={"zero"}, module=("encoder", "encoder.0"), causes={"underflow"}, optimizer="optimizer", at=1,
                say="the encoder's features pass through half precision while the loss is tiny (a mean over many pixels): the gradient underflows in the cast")


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(8, 16), nn.Tanh())
        self.bias = nn.Parameter(torch.zeros(256))
        self.decoder = nn.Linear(16, 256)

    def forward(self, x):
        h = self.encoder(x).half().float()
        return self.decoder(h) * 1e-3 + self.bias


def train(track, steps):
    torch.manual_seed(54)
    model = Mixed()
    opt = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(256, 8)
            y = 0.01 * x[:, :1].expand(-1, 256)
            loss = F.mse_loss(model(x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
