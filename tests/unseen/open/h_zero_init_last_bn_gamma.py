import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 90
EXPECTED = None


class Basic(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.conv1 = nn.Conv2d(c, c, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(c)
        self.conv2 = nn.Conv2d(c, c, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(c)
        nn.init.zeros_(self.bn2.weight)

    def forward(self, x):
        return F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


def train(track, steps):
    torch.manual_seed(204)
    model = nn.Sequential()
    model.add_module("stem", nn.Conv2d(1, 8, 3, padding=1))
    model.add_module("layer1", nn.Sequential(Basic(8), Basic(8)))
    model.add_module("pool", nn.AdaptiveAvgPool2d(1))
    model.add_module("flat", nn.Flatten())
    model.add_module("fc", nn.Linear(8, 3))
    opt = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=5e-4)
    sched = torch.optim.lr_scheduler.CosineAnnealingLR(opt, steps)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            y = torch.randint(0, 3, (16,))
            x = torch.randn(16, 1, 8, 8) * (0.3 + 0.4 * y[:, None, None, None])
            loss = F.cross_entropy(model(x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            sched.step()
            losses.append(loss.item())
    return losses
