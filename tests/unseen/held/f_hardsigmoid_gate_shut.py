import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = dict(rules={"zero"}, module=("gate",), causes={"clamped", "saturated-sigmoid"}, optimizer="optimizer", at=1,
                say="the gate's hardsigmoid is above +3 for all inputs, where it is flat: the gate learns nothing")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(8, 24)
        self.gate = nn.Linear(8, 24)
        self.head = nn.Linear(24, 2)
        nn.init.constant_(self.gate.bias, 8.0)

    def forward(self, x):
        return self.head(F.gelu(self.stem(x)) * F.hardsigmoid(self.gate(x)))


def train(track, steps):
    torch.manual_seed(61)
    model = Net()
    opt = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(32, 8)
            loss = F.cross_entropy(model(x), (x[:, 0] * x[:, 1] > 0).long())
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
