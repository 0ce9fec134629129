import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 70
EXPECTED = dict(rules={"nonfinite"}, module=None, causes={"nonfinite-loss", "nonfinite-op"}, optimizer="optimizer", at=45,
                say="an utterance is shorter than its transcript: CTC is inf without zero_infinity, and its gradient NaN")


class Asr(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(6, 24, batch_first=True)
        self.head = nn.Linear(24, 8)

    def forward(self, x):
        return self.head(self.rnn(x)[0]).log_softmax(-1)


def train(track, steps):
    torch.manual_seed(13)
    model = Asr()
    opt = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    with track(opt, model):
        for i in range(1, steps + 1):
            x = torch.randn(4, 16, 6)
            y = torch.randint(1, 8, (4, 5))
            inp = torch.full((4,), 16)
            if i >= 45:
                inp[2] = 3
            logp = model(x).transpose(0, 1)
            loss = F.ctc_loss(logp, y, inp, torch.full((4,), 5))
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
