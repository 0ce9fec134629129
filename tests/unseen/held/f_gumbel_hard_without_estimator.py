import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = dict(rules={"zero"}, module=("codes", "codes.0", "codes.2"), causes={"detached"}, optimizer="optimizer", at=1,
                say="the discrete code is one_hot(argmax(logits + gumbel)): integers have no gradient, and the straight-through term is missing")


class Dvae(nn.Module):
    def __init__(self):
        super().__init__()
        self.codes = nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 6))
        self.book = nn.Linear(6, 16)
        self.out = nn.Linear(16, 8)

    def forward(self, x):
        logits = self.codes(x)
        g = -torch.log(-torch.log(torch.rand_like(logits).clamp(1e-6, 1 - 1e-6)))
        z = F.one_hot((logits + g).argmax(-1), 6).float()
        return self.out(F.relu(self.book(z)))


def train(track, steps):
    torch.manual_seed(106)
    model = Dvae()
    opt = torch.optim.Adam(model.parameters(), 2e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            k = torch.randint(0, 6, (32,))
            x = F.one_hot(k, 8).float()
            loss = F.mse_loss(model(x), x)
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
