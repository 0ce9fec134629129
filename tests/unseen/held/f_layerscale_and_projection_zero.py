import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = dict(rules={"zero"}, module=("block", "block.fc1", "block.fc2"), causes={"zero-weight", "zero-factor", "zero-input"}, optimizer="optimizer", at=1,
                say="the residual branch is zeroed twice, by its last weight and by LayerScale's gamma: each holds the other at 0")


class Branch(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(16, 32)
        self.fc2 = nn.Linear(32, 16, bias=False)
        self.gamma = nn.Parameter(torch.zeros(16))
        nn.init.zeros_(self.fc2.weight)

    def forward(self, x):
        return x + self.gamma * self.fc2(F.gelu(self.fc1(x)))


def train(track, steps):
    torch.manual_seed(42)
    model = nn.Sequential()
    model.add_module("stem", nn.Linear(6, 16))
    model.add_module("block", Branch())
    model.add_module("head", nn.Linear(16, 3))
    opt = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(32, 6)
            loss = F.cross_entropy(model(x), x[:, :3].argmax(1))
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
