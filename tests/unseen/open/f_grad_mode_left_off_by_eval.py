import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 90
EXPECTED = dict(rules={"zero"}, module=("gnn", "gnn.w1", "gnn.w2"), causes={"no-grad"}, optimizer="optimizer", at=41,
                say="after the first evaluation the backbone's flag for frozen features stays on: it runs with grad mode off from step 41")


class Gcn(nn.Module):
    def __init__(self):
        super().__init__()
        self.w1 = nn.Linear(6, 16)
        self.w2 = nn.Linear(16, 16)
        self.frozen = False

    def forward(self, a, x):
        with torch.set_grad_enabled(not self.frozen):
            h = F.relu(a @ self.w1(x))
            return F.relu(a @ self.w2(h))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.gnn = Gcn()
        self.head = nn.Linear(16, 2)

    def forward(self, a, x):
        return self.head(self.gnn(a, x))


def train(track, steps):
    torch.manual_seed(70)
    model = Net()
    a = (torch.rand(40, 40) < 0.1).float()
    a = ((a + a.T + torch.eye(40)) > 0).float()
    a = a / a.sum(1, keepdim=True)
    x = torch.randn(40, 6)
    y = ((a @ x)[:, 0] > 0).long()
    opt = torch.optim.Adam(model.parameters(), 5e-3)
    losses = []
    with track(opt, model):
        for i in range(1, steps + 1):
            loss = F.cross_entropy(model(a, x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
            if i == 40:
                model.gnn.frozen = True
                with torch.no_grad():
                    model(a, x)
    return losses
