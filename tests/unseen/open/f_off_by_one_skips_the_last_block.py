import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = dict(rules={"zero"}, module=("h.3", "h.3.0", "h.3.1"), causes={"unused"}, optimizer="optimizer", at=1,
                say="range(n_layer - 1) leaves out the last block of the stack: it is never called")


class Gptish(nn.Module):
    def __init__(self, n_layer=4):
        super().__init__()
        self.wte = nn.Embedding(16, 16)
        self.h = nn.ModuleList([nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 16), nn.GELU()) for _ in range(n_layer)])
        self.lm_head = nn.Linear(16, 16)
        self.n_layer = n_layer

    def forward(self, t):
        x = self.wte(t)
        for i in range(self.n_layer - 1):
            x = x + self.h[i](x)
        return self.lm_head(x)


def train(track, steps):
    torch.manual_seed(75)
    model = Gptish()
    opt = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=0.1)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            t = torch.randint(0, 16, (8, 9))
            loss = F.cross_entropy(model(t).flatten(0, 1), ((t * 3 + 1) % 16).flatten())
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
