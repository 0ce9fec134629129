import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = dict(rules={"zero"}, module=("branch", "branch.0", "branch.2"), causes={"masked", "zero-factor"}, optimizer="optimizer", at=1,
                say="dropout's p was read as the probability to keep: with p=1.0 it drops everything, and the branch before it is never trained")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.skip = nn.Linear(10, 16)
        self.branch = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 16))
        self.drop = nn.Dropout(p=1.0)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        return self.head(F.relu(self.skip(x) + self.drop(self.branch(x))))


def train(track, steps):
    torch.manual_seed(67)
    model = Net()
    opt = torch.optim.Adam(model.parameters(), 2e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(32, 10)
            loss = F.cross_entropy(model(x), x[:, :3].argmax(1))
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
