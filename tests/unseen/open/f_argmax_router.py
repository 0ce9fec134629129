import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = dict(rules={"zero"}, module=("router",), causes={"detached"}, optimizer="optimizer", at=1,
                say="the router picks its expert by argmax and does not weigh the output by the gate's probability: it has no path to the loss")


class Moe(nn.Module):
    def __init__(self):
        super().__init__()
        self.router = nn.Linear(8, 3)
        self.experts = nn.ModuleList([nn.Linear(8, 16) for _ in range(3)])
        self.head = nn.Linear(16, 2)

    def forward(self, x):
        hard = F.one_hot(self.router(x).argmax(-1), 3).float()
        out = torch.stack([e(x) for e in self.experts], 1)
        return self.head(F.relu((hard[..., None] * out).sum(1)))


def train(track, steps):
    torch.manual_seed(73)
    model = Moe()
    opt = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(64, 8)
            loss = F.cross_entropy(model(x), (x[:, 0] * x[:, 1] > 0).long())
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
