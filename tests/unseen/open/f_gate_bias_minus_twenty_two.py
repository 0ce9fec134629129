import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 80
EXPECTED = dict(rules={"vanishing"}, module=("gate", "branch"), causes={"saturated-sigmoid"}, optimizer="optimizer", at=1,
                say="the gate's bias starts at -22: sigmoid is 3e-10, and neither the gate nor what it gates gets a gradient to speak of")


class Highway(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(10, 24)
        self.branch = nn.Linear(24, 24)
        self.gate = nn.Linear(24, 1)
        self.head = nn.Linear(24, 3)
        nn.init.constant_(self.gate.bias, -22.0)

    def forward(self, x):
        h = torch.tanh(self.stem(x))
        g = torch.sigmoid(self.gate(h))
        return self.head(h + g * F.gelu(self.branch(h)))


def train(track, steps):
    torch.manual_seed(32)
    model = Highway()
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
