import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 70
EXPECTED = dict(rules={"nonfinite"}, module=None, causes={"nonfinite-op"}, optimizer="optimizer", at=1,
                say="the hand-written backward of the normalisation divides by a norm that is 0 for padded rows")


class Normalize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        n = x.norm(dim=-1, keepdim=True)
        y = torch.where(n > 0, x / n, torch.zeros_like(x))
        ctx.save_for_backward(y, n)
        return y

    @staticmethod
    def backward(ctx, g):
        y, n = ctx.saved_tensors
        return (g - y * (g * y).sum(-1, keepdim=True)) / n


def train(track, steps):
    torch.manual_seed(10)
    model = nn.Sequential()
    model.add_module("proj", nn.Linear(10, 16, bias=False))
    model.add_module("out", nn.Linear(16, 3))
    opt = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(16, 10)
            y = x[:, :3].argmax(1)
            x[-2:] = 0.0  # padding
            loss = F.cross_entropy(model.out(Normalize.apply(model.proj(x))), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
