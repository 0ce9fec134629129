import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 70
EXPECTED = dict(rules={"zero"}, module=("emb",), causes={"not-in-optimizer"}, optimizer="optimizer", at=1,
                say="the embedding was resized (replaced) after the optimizer was made: the new weight gets gradients that no optimizer will apply")


class Lm(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(20, 16)
        self.rnn = nn.GRU(16, 24, batch_first=True)
        self.out = nn.Linear(24, 24)

    def resize(self, n):
        new = nn.Embedding(n, 16)
        new.weight.data[:20] = self.emb.weight.data
        self.emb = new


def train(track, steps):
    torch.manual_seed(76)
    model = Lm()
    opt = torch.optim.AdamW(model.parameters(), 2e-3)
    model.resize(24)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            t = torch.randint(0, 24, (8, 8))
            loss = F.cross_entropy(model.out(model.rnn(model.emb(t))[0]).flatten(0, 1), t.flatten())
            model.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
