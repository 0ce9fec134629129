import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = dict(rules={"zero", "vanishing"}, module=("excite",), causes={"saturated-sigmoid"}, optimizer="optimizer", at=1,
                say="the squeeze sums rather than averages, so that the excitation's sigmoid is at exactly 1 (or 0) for all channels")


class Se(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.excite = nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)
        nn.init.constant_(self.excite.weight, 1.0)

    def forward(self, x):
        h = F.relu(self.conv(x)) + 0.1
        g = torch.sigmoid(self.excite(h.sum((2, 3))))
        return self.head((h * g[:, :, None, None]).mean((2, 3)))


def train(track, steps):
    torch.manual_seed(40)
    model = Se()
    opt = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.rand(16, 1, 10, 10)
            y = torch.randint(0, 3, (16,))
            x = x * (y + 1)[:, None, None, None]
            loss = F.cross_entropy(model(x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
