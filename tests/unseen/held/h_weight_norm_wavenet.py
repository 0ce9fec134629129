import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 80
EXPECTED = None


class Wave(nn.Module):
    def __init__(self):
        super().__init__()
        from torch.nn.utils.parametrizations import weight_norm

        self.inp = nn.Conv1d(1, 12, 1)
        self.layers = nn.ModuleList([weight_norm(nn.Conv1d(12, 24, 2, dilation=2 ** i)) for i in range(3)])
        self.res = nn.ModuleList([nn.Conv1d(12, 12, 1) for _ in range(3)])
        self.out = nn.Conv1d(12, 1, 1)

    def forward(self, x):
        h = self.inp(x)
        skip = 0
        for conv, res in zip(self.layers, self.res):
            a, b = conv(F.pad(h, (conv.dilation[0], 0))).chunk(2, 1)
            z = res(torch.tanh(a) * torch.sigmoid(b))
            skip, h = skip + z, h + z
        return self.out(F.relu(skip))


def train(track, steps):
    torch.manual_seed(302)
    model = Wave()
    opt = torch.optim.Adam(model.parameters(), 5e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            w = torch.sin(torch.arange(33.0) * (0.3 + 0.3 * torch.rand(8, 1)) + 6 * torch.rand(8, 1))[:, None]
            loss = F.mse_loss(model(w[..., :-1])[..., 8:], w[..., 9:])
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
