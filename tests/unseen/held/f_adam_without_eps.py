import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = dict(rules={"nonfinite"}, module=None, causes={"nonfinite-weights"}, optimizer="optimizer", at=2,
                say="Adam with eps=0 divides 0 by 0 where a gradient is 0 (embedding rows not in the batch), and the weights are NaN before the second forward")


def train(track, steps):
    torch.manual_seed(6)
    model = nn.Sequential()
    model.add_module("emb", nn.Embedding(50, 8))
    model.add_module("flat", nn.Flatten())
    model.add_module("out", nn.Linear(32, 1))
    opt = torch.optim.Adam(model.parameters(), lr=1e-3, eps=0.0)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            tok = torch.randint(0, 50, (16, 4))
            y = (tok.float().mean(1, keepdim=True) - 25) / 10
            loss = F.mse_loss(model(tok), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
