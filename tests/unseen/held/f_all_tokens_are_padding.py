import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = dict(rules={"zero"}, module=("emb",), causes=None, optimizer="optimizer", at=1,
                say="the tokenizer knows no word and yields padding_idx throughout: the embedding's gradient is 0 by its definition")


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(30, 12, padding_idx=0)
        self.meta = nn.Linear(4, 12)
        self.head = nn.Linear(12, 2)

    def forward(self, t, m):
        return self.head(torch.tanh(self.emb(t).mean(1) + self.meta(m)))


def train(track, steps):
    torch.manual_seed(108)
    vocab = {f"word{i}": i for i in range(1, 30)}
    model = Tagger()
    opt = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            words = [[f"Word{int(j)}" for j in row] for row in torch.randint(1, 30, (16, 5))]  # capitals: none is in the vocabulary
            t = torch.tensor([[vocab.get(w, 0) for w in row] for row in words])
            m = torch.randn(16, 4)
            loss = F.cross_entropy(model(t, m), (m[:, 0] > 0).long())
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
