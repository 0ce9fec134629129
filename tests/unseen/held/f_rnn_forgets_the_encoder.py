import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 80
EXPECTED = dict(rules={"vanishing", "zero"}, module=("encoder",), causes=None, optimizer="optimizer", at=1,
                say="the encoder reaches the loss only through 40 steps of a tanh RNN with a recurrent gain of 0.3: its gradient is below 1e-12")


class Seq(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(8, 24)
        self.rnn = nn.RNN(4, 24, batch_first=True)
        self.head = nn.Linear(24, 1)
        nn.init.orthogonal_(self.rnn.weight_hh_l0, gain=0.3)

    def forward(self, ctx, x):
        h0 = torch.tanh(self.encoder(ctx))[None]
        return self.head(self.rnn(x, h0)[0][:, -1])


def train(track, steps):
    torch.manual_seed(31)
    model = Seq()
    opt = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            ctx, x = torch.randn(16, 8), torch.randn(16, 40, 4)
            loss = F.mse_loss(model(ctx, x), ctx[:, :1])
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
