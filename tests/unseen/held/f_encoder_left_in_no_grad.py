import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = dict(rules={"zero"}, module=("encoder", "encoder.0", "encoder.2"), causes={"no-grad"}, optimizer="optimizer", at=1,
                say="the encoder is called under torch.no_grad(), left from feature extraction, although its parameters are to be fine-tuned")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 16))
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        with torch.no_grad():
            h = self.encoder(x)
        return self.head(h)


def train(track, steps):
    torch.manual_seed(69)
    model = Net()
    opt = torch.optim.AdamW(model.parameters(), 2e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(32, 10)
            loss = F.cross_entropy(model(x), x[:, :3].argmax(1))
            opt.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            opt.step()
            losses.append(loss.item())
    return losses
