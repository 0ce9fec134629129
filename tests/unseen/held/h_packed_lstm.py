import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 80
EXPECTED = None


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(40, 12, padding_idx=0)
        self.lstm = nn.LSTM(12, 20, bidirectional=True, batch_first=True)
        self.out = nn.Linear(40, 2)

    def forward(self, tok, length):
        packed = nn.utils.rnn.pack_padded_sequence(self.emb(tok), length, batch_first=True, enforce_sorted=False)
        h, _ = self.lstm(packed)
        h, _ = nn.utils.rnn.pad_packed_sequence(h, batch_first=True)
        return self.out(h)


def train(track, steps):
    torch.manual_seed(213)
    model = Tagger()
    opt = torch.optim.Adam(model.parameters(), 5e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            length = torch.randint(1, 10, (12,))
            tok = torch.randint(1, 40, (12, 9)) * (torch.arange(9)[None] < length[:, None])
            y = (tok > 20).long().masked_fill(tok == 0, -100)[:, :int(length.max())]
            loss = F.cross_entropy(model(tok, length).flatten(0, 1), y.flatten(), ignore_index=-100)
            opt.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            opt.step()
            losses.append(loss.item())
    return losses
