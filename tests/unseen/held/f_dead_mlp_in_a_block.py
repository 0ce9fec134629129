import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 70
EXPECTED = dict(rules={"zero"}, module=("blocks.1.fc1", "blocks.1.norm"), causes={"dead-relu"}, optimizer="optimizer", at=1,
                say="fc1 of the second block was loaded with a bias of -30: its ReLU is shut for all tokens, the residual path hides it")


class Block(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.norm = nn.LayerNorm(d)
        self.fc1 = nn.Linear(d, 2 * d)
        self.fc2 = nn.Linear(2 * d, d)

    def forward(self, x):
        return x + self.fc2(F.relu(self.fc1(self.norm(x))))


class Vitish(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch = nn.Linear(4, 16)
        self.blocks = nn.ModuleList([Block(16) for _ in range(3)])
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        h = self.patch(x)
        for b in self.blocks:
            h = b(h)
        return self.head(h.mean(1))


def train(track, steps):
    torch.manual_seed(37)
    model = Vitish()
    nn.init.constant_(model.blocks[1].fc1.bias, -30.0)
    opt = torch.optim.AdamW(model.parameters(), 1e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(16, 9, 4)
            loss = F.cross_entropy(model(x), x.mean(1)[:, :3].argmax(1))
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
