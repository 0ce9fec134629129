import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 70
EXPECTED = dict(rules={"nonfinite"}, module=None, causes={"nonfinite-loss", "nonfinite-op"}, optimizer="optimizer", at=40,
                say="an empty sequence comes in at step 40: its attention row is -inf throughout, and softmax gives NaN")


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(20, 16)
        self.q = nn.Linear(16, 16)
        self.k = nn.Linear(16, 16)
        self.v = nn.Linear(16, 16)
        self.head = nn.Linear(16, 2)

    def forward(self, tok, pad):
        h = self.emb(tok)
        a = self.q(h) @ self.k(h).transpose(1, 2) / 4.0
        a = a.masked_fill(pad[:, None, :], float("-inf")).softmax(-1)
        h = a @ self.v(h)
        keep = (~pad).float()[..., None]
        return self.head((h * keep).sum(1) / keep.sum(1).clamp(min=1))


def train(track, steps):
    torch.manual_seed(3)
    model = Encoder()
    opt = torch.optim.AdamW(model.parameters(), 2e-3)
    losses = []
    with track(opt, model):
        for i in range(1, steps + 1):
            tok = torch.randint(1, 20, (16, 8))
            length = torch.randint(2, 9, (16,))
            if i >= 40:
                length[3] = 0
            pad = torch.arange(8)[None] >= length[:, None]
            y = (tok[:, 0] > 10).long()
            loss = F.cross_entropy(model(tok, pad), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
