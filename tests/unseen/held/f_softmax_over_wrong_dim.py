import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = dict(rules={"zero"}, module=("score",), causes={"constant"}, optimizer="optimizer", at=1,
                say="the attention pool's softmax runs over the last dimension, which has one entry: the weights are 1 for every token")


class Pool(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(20, 16)
        self.score = nn.Linear(16, 1)
        self.head = nn.Linear(16, 2)

    def forward(self, t):
        h = self.emb(t)
        w = torch.softmax(self.score(h), dim=-1)
        return self.head((w * h).sum(1))


def train(track, steps):
    torch.manual_seed(50)
    model = Pool()
    opt = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            t = torch.randint(0, 20, (32, 6))
            loss = F.cross_entropy(model(t), (t.float().mean(1) > 9.5).long())
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
