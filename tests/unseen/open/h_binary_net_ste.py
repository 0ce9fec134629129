import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 90
EXPECTED = None


class Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sign()

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * (x.abs() <= 1)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(10, 48)
        self.bn = nn.BatchNorm1d(48)
        self.fc2 = nn.Linear(48, 2)

    def forward(self, x):
        return self.fc2(Sign.apply(self.bn(self.fc1(x))))


def train(track, steps):
    torch.manual_seed(233)
    model = Net()
    opt = torch.optim.Adam(model.parameters(), 4e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(64, 10)
            loss = F.cross_entropy(model(x), (x[:, 0] + x[:, 1] > 0).long())
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
