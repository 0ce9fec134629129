import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = dict(rules={"zero"}, module=("stem", "stem.0"), causes={"clamped", "dead-relu"}, optimizer="optimizer", at=20,
                say="from step 20 the input is unnormalised, and ReLU6 sits at its ceiling of 6 for every position: the stem is flat")


class Mobile(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU6())
        self.head = nn.Linear(6, 2)
        with torch.no_grad():
            self.stem[0].weight.abs_()

    def forward(self, x):
        return self.head(self.stem(x).mean((2, 3)))


def train(track, steps):
    torch.manual_seed(64)
    model = Mobile()
    opt = torch.optim.SGD(model.parameters(), 0.02, momentum=0.9)
    losses = []
    with track(opt, model):
        for i in range(1, steps + 1):
            y = torch.randint(0, 2, (16,))
            x = torch.rand(16, 1, 8, 8) * (0.5 + y[:, None, None, None])
            if i >= 20:
                x = x * 255 + 100
            loss = F.cross_entropy(model(x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
