import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 120
EXPECTED = None
DOUBT = "with four tokens to a batch an expert may go unrouted for 3 steps running; by the letter of `zero` its gradients are then missing, though it is healthy"


class Switch(nn.Module):
    def __init__(self):
        super().__init__()
        self.router = nn.Linear(8, 4)
        self.experts = nn.ModuleList([nn.Linear(8, 8) for _ in range(4)])
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        p = (self.router(x) + torch.randn(x.shape[0], 4)).softmax(-1)
        g, i = p.max(-1)
        out = torch.stack([g[j] * self.experts[int(i[j])](x[j]) for j in range(len(x))])
        return self.head(F.relu(x + out))


def train(track, steps):
    torch.manual_seed(201)
    model = Switch()
    opt = torch.optim.Adam(model.parameters(), 2e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(4, 8)
            loss = F.cross_entropy(model(x), (x[:, 0] > 0).long())
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
