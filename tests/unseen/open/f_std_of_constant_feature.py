import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = dict(rules={"nonfinite"}, module=None, causes={"nonfinite-op"}, optimizer="optimizer", at=1,
                say="VICReg's std term takes sqrt of the variance of a zero-initialised expander (no eps), whose derivative is inf, and inf times 0 is NaN: the loss is finite, the gradient is not")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(12, 32), nn.ReLU())
        self.expander = nn.Linear(32, 16)
        nn.init.zeros_(self.expander.weight)
        nn.init.zeros_(self.expander.bias)

    def forward(self, x):
        return self.expander(self.encoder(x))


def train(track, steps):
    torch.manual_seed(0)
    net = Net()
    opt = torch.optim.Adam(net.parameters(), 1e-3)
    losses = []
    with track(opt, net):
        for _ in range(steps):
            x = torch.randn(32, 12)
            z1 = net(x + 0.1 * torch.randn_like(x))
            z2 = net(x + 0.1 * torch.randn_like(x))
            inv = F.mse_loss(z1, z2)
            std = F.relu(1 - z1.var(dim=0).sqrt()).mean() + F.relu(1 - z2.var(dim=0).sqrt()).mean()
            loss = 25 * inv + 25 * std
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
