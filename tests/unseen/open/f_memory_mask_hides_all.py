import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 70
EXPECTED = dict(rules={"zero"}, module=("encoder", "encoder.0", "encoder.1", "encoder.2", "q"), causes={"masked", "zero-factor", "zero-input", "zero-weight"}, optimizer="optimizer", at=1,
                say="the cross-attention's output is multiplied by a source mask of the wrong polarity, so that the decoder never hears the encoder")


class T5ish(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Embedding(12, 16), nn.Linear(16, 16), nn.LayerNorm(16))
        self.tgt_emb = nn.Embedding(12, 16)
        self.q = nn.Linear(16, 16)
        self.out = nn.Linear(16, 12)

    def forward(self, src, tgt, pad):
        m = self.encoder(src)
        h = self.tgt_emb(tgt)
        keep = pad.float()  # True is padding: should be ~pad
        a = (self.q(h) @ m.transpose(1, 2) / 4).softmax(-1) * keep[:, None, :]
        return self.out(h + a @ m)


def train(track, steps):
    torch.manual_seed(66)
    model = T5ish()
    opt = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            src = torch.randint(0, 12, (8, 6))
            tgt = src.flip(1)
            pad = torch.zeros(8, 6, dtype=torch.bool)
            loss = F.cross_entropy(model(src, tgt.roll(1, 1), pad).flatten(0, 1), tgt.flatten())
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
