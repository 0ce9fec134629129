import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 110
EXPECTED = dict(rules={"explosion", "nonfinite"}, module=("rnn", None), causes=None, optimizer="optimizer", at=70,
                say="a 'fix' re-initialises the recurrent matrix with gain 3 in mid-run: through 24 linear-ish steps the gradient grows as 3^24")


class Adding(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.RNN(2, 24, batch_first=True, nonlinearity="relu")
        self.head = nn.Linear(24, 1)
        nn.init.eye_(self.rnn.weight_hh_l0)
        with torch.no_grad():
            self.rnn.weight_hh_l0.mul_(0.9)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


def train(track, steps):
    torch.manual_seed(21)
    model = Adding()
    opt = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    with track(opt, model):
        for i in range(1, steps + 1):
            x = torch.rand(32, 24, 2)
            y = x[..., 0].mean(1, keepdim=True)
            if i == 70:
                nn.init.orthogonal_(model.rnn.weight_hh_l0, gain=3.0)
            loss = F.mse_loss(model(x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
