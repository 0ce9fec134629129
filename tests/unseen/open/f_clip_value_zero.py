import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = dict(rules={"zero"}, module=None, causes={"clipped-to-zero"}, optimizer="optimizer", at=31,
                say="the clip value is annealed by integer division and reaches 0 at step 31: clip_grad_value_(0) erases the gradient")


def train(track, steps):
    torch.manual_seed(102)
    model = nn.Sequential(nn.Conv1d(2, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(80, 1))
    opt = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    with track(opt, model):
        for i in range(steps):
            x = torch.randn(16, 2, 12)
            loss = F.mse_loss(model(x), x.mean((1, 2))[:, None])
            opt.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_value_(model.parameters(), (60 - i) // 31)
            opt.step()
            losses.append(loss.item())
    return losses
