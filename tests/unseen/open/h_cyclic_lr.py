import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 150
EXPECTED = None


def train(track, steps):
    torch.manual_seed(238)
    model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1))
    opt = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)
    sched = torch.optim.lr_scheduler.CyclicLR(opt, 1e-3, 5e-2, step_size_up=15)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(64, 10)
            loss = F.mse_loss(model(x), x[:, :3].sum(1, keepdim=True) + 0.5 * torch.randn(64, 1))
            opt.zero_grad()
            loss.backward()
            opt.step()
            sched.step()
            losses.append(loss.item())
    return losses
