import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = dict(rules={"zero"}, module=("proj",), causes={"constant"}, optimizer="optimizer", at=1,
                say="LayerNorm runs over the axis that unsqueeze just made: each number is normalised by itself, and the output is constant")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.skip = nn.Linear(9, 8)
        self.proj = nn.Linear(9, 8)
        self.norm = nn.LayerNorm(1, elementwise_affine=False)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        h = self.norm(self.proj(x).unsqueeze(-1)).squeeze(-1)
        return self.head(F.relu(h + self.skip(x)))


def train(track, steps):
    torch.manual_seed(49)
    model = Net()
    opt = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(32, 9)
            loss = F.cross_entropy(model(x), x[:, :3].argmax(1))
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
