import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = dict(rules={"zero"}, module=("blocks.0", "blocks", "blocks.0.0", "blocks.0.2"), causes={"no-grad", "detached"}, optimizer="optimizer", at=1,
                say="reentrant checkpointing of a block whose input needs no gradient (raw features): the block's parameters get none")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(10, 10), nn.GELU(), nn.Linear(10, 10)) for _ in range(2)])
        self.head = nn.Linear(10, 3)

    def forward(self, x):
        from torch.utils.checkpoint import checkpoint

        x = checkpoint(self.blocks[0], x, use_reentrant=True)
        return self.head(x + self.blocks[1](x))


def train(track, steps):
    torch.manual_seed(107)
    model = Net()
    opt = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(32, 10)
            loss = F.cross_entropy(model(x), x[:, :3].argmax(1))
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
