import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 70
EXPECTED = dict(rules={"zero"}, module=("fc",), causes={"not-in-optimizer"}, optimizer="optimizer", at=1,
                say="model.fc is replaced for the new task after the optimizer took the old parameters: the new head stays at its random start")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv1d(1, 8, 3)
        self.bn1 = nn.BatchNorm1d(8)
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        return self.fc(F.relu(self.bn1(self.conv1(x))).mean(2))


def train(track, steps):
    torch.manual_seed(77)
    model = Net()
    opt = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    model.fc = nn.Linear(8, 2)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            y = torch.randint(0, 2, (16,))
            x = torch.randn(16, 1, 12) + torch.sin(torch.arange(12.0) * (1 + y[:, None]))[:, None]
            loss = F.cross_entropy(model(x), y)
            model.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
