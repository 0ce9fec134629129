import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 100
EXPECTED = None


class Dvae(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc = nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 8))
        self.dec = nn.Linear(8, 8)

    def forward(self, x, tau, hard):
        return self.dec(F.gumbel_softmax(self.enc(x), tau=tau, hard=hard))


def train(track, steps):
    torch.manual_seed(286)
    model = Dvae()
    opt = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    with track(opt, model):
        for i in range(steps):
            x = F.one_hot(torch.randint(0, 8, (64,)), 8).float()
            loss = F.cross_entropy(model(x, max(0.5, 0.98 ** i), i > 60), x.argmax(1))
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
