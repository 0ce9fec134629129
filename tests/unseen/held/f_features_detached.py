import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = dict(rules={"zero"}, module=("conv", "conv.0", "conv.2"), causes={"detached"}, optimizer="optimizer", at=1,
                say=".detach() between the convolution and the head, left from a two-stage recipe, cuts the backbone off the loss")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU())
        self.head = nn.Linear(64, 3)

    def forward(self, x):
        f = self.conv(x)
        return self.head(f.flatten(1).detach())


def train(track, steps):
    torch.manual_seed(71)
    model = Net()
    opt = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=1e-4)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            y = torch.randint(0, 3, (16,))
            x = torch.rand(16, 1, 8, 8)
            x[torch.arange(16), 0, 2 * y] += 1
            loss = F.cross_entropy(model(x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
