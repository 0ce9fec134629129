import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = dict(rules={"zero"}, module=("decoder",), causes={"masked", "zero-factor", "zero-loss"}, optimizer="optimizer", at=1,
                say="the padding mask is inverted and no batch has padding: the reconstruction loss is masked away altogether")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(6, 16, batch_first=True)
        self.decoder = nn.Linear(16, 6)
        self.cls = nn.Linear(16, 2)


def train(track, steps):
    torch.manual_seed(65)
    net = Net()
    opt = torch.optim.Adam(net.parameters(), 3e-3)
    losses = []
    with track(opt, net):
        for _ in range(steps):
            x = torch.randn(16, 7, 6)
            mask = torch.ones(16, 7)
            h, _ = net.rnn(x)
            err = (net.decoder(h) - x).pow(2).mean(-1)
            recon = (err * (1 - mask)).sum() / (1 - mask).sum().clamp(min=1)
            loss = recon + F.cross_entropy(net.cls(h[:, -1]), (x[:, :, 0].mean(1) > 0).long())
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
