import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 80
EXPECTED = dict(rules={"zero"}, module=("audio",), causes={"zero-input"}, optimizer="optimizer", at=30,
                say="from step 30 the audio loader fails quietly and returns zeros: the audio projection gets no gradient any more")


class Fusion(nn.Module):
    def __init__(self):
        super().__init__()
        self.video = nn.Linear(12, 16)
        self.audio = nn.Linear(6, 16, bias=False)
        self.head = nn.Linear(16, 2)

    def forward(self, v, a):
        return self.head(F.gelu(self.video(v) + self.audio(a)))


def train(track, steps):
    torch.manual_seed(45)
    model = Fusion()
    opt = torch.optim.Adam(model.parameters(), 2e-3)
    losses = []
    with track(opt, model):
        for i in range(1, steps + 1):
            v, a = torch.randn(32, 12), torch.randn(32, 6)
            y = (v[:, 0] + a[:, 0] > 0).long()
            if i >= 30:
                a = torch.zeros_like(a)
            loss = F.cross_entropy(model(v, a), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
