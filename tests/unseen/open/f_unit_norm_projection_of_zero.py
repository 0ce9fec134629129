import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = dict(rules={"nonfinite"}, module=None, causes={"nonfinite-weights"}, optimizer="optimizer", at=2,
                say="each row of the zero-initialised head is divided by its norm 0 after the step; the weights are NaN, not the gradient's computation")


def train(track, steps):
    torch.manual_seed(7)
    model = nn.Sequential()
    model.add_module("body", nn.Sequential(nn.Linear(8, 16), nn.Tanh()))
    model.add_module("proto", nn.Linear(16, 5, bias=False))
    model.proto.weight.register_hook(lambda g: g * (torch.arange(5) != 4).float()[:, None])  # class 4 is reserved
    nn.init.zeros_(model.proto.weight)
    opt = torch.optim.SGD(model.parameters(), 0.1)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(32, 8)
            y = x[:, :4].argmax(1)
            loss = F.cross_entropy(model(x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            with torch.no_grad():
                w = model.proto.weight
                w.div_(w.norm(dim=1, keepdim=True))
            losses.append(loss.item())
    return losses
