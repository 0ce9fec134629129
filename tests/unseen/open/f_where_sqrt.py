import torch
import torch.nn as nn

STEPS = 60
EXPECTED = dict(rules={"nonfinite"}, module=None, causes={"nonfinite-op"}, optimizer="optimizer", at=30,
                say="torch.where does not stop the NaN of the branch not taken: the sqrt of exactly 0 has derivative inf, times the 0 of where")


def train(track, steps):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 32), nn.Softplus(), nn.Linear(32, 1))
    opt = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    with track(opt, model):
        for i in range(1, steps + 1):
            x = torch.randn(32, 6)
            y = (x ** 2).sum(1, keepdim=True)
            w = torch.rand(32, 1)
            if i >= 30:
                w[::8] = 0.0  # missing observations, weight 0
            pred = model(x)
            err = (w * (pred - y)) ** 2
            root = torch.where(err > 0, err.sqrt(), torch.zeros_like(err))
            loss = root.mean()
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
