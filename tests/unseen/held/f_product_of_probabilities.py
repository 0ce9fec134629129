import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = dict(rules={"zero"}, module=("emission", "emission.0", "emission.2"), causes={"underflow", "zero-factor"}, optimizer="optimizer", at=1,
                say="the likelihood is a product of 200 probabilities in float32: it underflows to 0, and log(0 + eps) has no gradient left")


class Hmm(nn.Module):
    def __init__(self):
        super().__init__()
        self.emission = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 12))
        self.prior = nn.Linear(4, 12)


def train(track, steps):
    torch.manual_seed(55)
    model = Hmm()
    opt = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(8, 200, 4)
            y = torch.randint(0, 12, (8, 200))
            p = model.emission(x).softmax(-1).gather(2, y[..., None])[..., 0]
            lik = p[:, 0]
            for t in range(1, 200, 1):
                lik = lik * p[:, t]
            loss = -torch.log(lik + 1e-8).mean() + F.cross_entropy(model.prior(x[:, 0]), y[:, 0])
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
