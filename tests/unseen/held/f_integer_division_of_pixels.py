import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = dict(rules={"zero"}, module=("stem",), causes={"zero-input"}, optimizer="optimizer", at=1,
                say="img // 255 instead of img / 255 makes every image 0; the first convolution (no bias) has nothing to learn from")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(F.relu(self.bn(self.stem(x)) + 0.1).mean((2, 3)))


def train(track, steps):
    torch.manual_seed(44)
    model = Net()
    opt = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            y = torch.randint(0, 3, (16,))
            img = torch.randint(0, 80, (16, 1, 8, 8)) + 80 * y[:, None, None, None]
            x = (img // 255).float()
            loss = F.cross_entropy(model(x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
