import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 80
EXPECTED = dict(rules={"vanishing", "zero"}, module=None, causes=None, optimizer="optimizer", at=1,
                say="attention logits multiplied by 20000 rather than divided by sqrt(d): softmax is one-hot, and q and k get no gradient")


class Attn(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(16, 32)
        self.q = nn.Linear(32, 32)
        self.k = nn.Linear(32, 32)
        self.v = nn.Linear(32, 32)
        self.out = nn.Linear(32, 16)

    def forward(self, t):
        h = self.emb(t)
        a = (self.q(h) @ self.k(h).transpose(1, 2) * 20000.0).softmax(-1)
        return self.out(h + a @ self.v(h))


def train(track, steps):
    torch.manual_seed(34)
    model = Attn()
    opt = torch.optim.AdamW(model.parameters(), 1e-4)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            t = torch.randint(0, 16, (4, 3))
            loss = F.cross_entropy(model(t).flatten(0, 1), t.roll(1, 1).flatten())
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
