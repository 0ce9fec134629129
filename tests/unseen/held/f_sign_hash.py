import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = dict(rules={"zero"}, module=("hash", "hash.0", "hash.2"), causes={"constant"}, optimizer="optimizer", at=1,
                say="the hash code is sign(z), whose derivative is 0: no gradient gets to the hashing network")


class Hashing(nn.Module):
    def __init__(self):
        super().__init__()
        self.hash = nn.Sequential(nn.Linear(12, 32), nn.GELU(), nn.Linear(32, 10))
        self.cls = nn.Linear(10, 4)

    def forward(self, x):
        return self.cls(torch.sign(self.hash(x)))


def train(track, steps):
    torch.manual_seed(53)
    model = Hashing()
    opt = torch.optim.RMSprop(model.parameters(), 1e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(32, 12)
            loss = F.cross_entropy(model(x), x[:, :4].argmax(1))
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
