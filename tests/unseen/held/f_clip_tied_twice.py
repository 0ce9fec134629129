import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 70
EXPECTED = dict(rules={"clip-broken"}, module=None, causes=None, optimizer="optimizer", at=1,
                say="the list given to clip_grad_norm_ holds the tied weight twice (embedding and head): its norm counts twice and it is scaled twice")


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.wte = nn.Embedding(30, 24)
        self.body = nn.Linear(24, 24)
        self.lm_head = nn.Linear(24, 30, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, t):
        return self.lm_head(torch.tanh(self.body(self.wte(t))))


def train(track, steps):
    torch.manual_seed(94)
    model = Tied()
    opt = torch.optim.AdamW(model.parameters(), 2e-3)
    clip_list = list(model.wte.parameters()) + list(model.body.parameters()) + list(model.lm_head.parameters())
    losses = []
    with track(opt, model):
        for _ in range(steps):
            t = torch.randint(0, 30, (8, 8))
            loss = F.cross_entropy(model(t).flatten(0, 1), ((t + 1) % 30).flatten())
            opt.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(clip_list, 0.3)
            opt.step()
            losses.append(loss.item())
    return losses
