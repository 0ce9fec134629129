import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = dict(rules={"zero"}, module=("pooler",), causes={"unused"}, optimizer="optimizer", at=1,
                say="forward takes the first token as it is; the pooler is made, held by the optimizer, and never called")


class Bertish(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(20, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.pooler = nn.Linear(16, 16)
        self.cls = nn.Linear(16, 2)

    def forward(self, t):
        return self.cls(self.layer(self.emb(t))[:, 0])


def train(track, steps):
    torch.manual_seed(74)
    model = Bertish()
    opt = torch.optim.AdamW(model.parameters(), 1e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            t = torch.randint(0, 20, (16, 6))
            loss = F.cross_entropy(model(t), (t[:, 1] > 9).long())
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
