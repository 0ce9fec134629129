import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 100
EXPECTED = None


def train(track, steps):
    torch.manual_seed(296)
    model = nn.Sequential(nn.Linear(10, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Dropout(0.2), nn.Linear(48, 3))
    opt = torch.optim.Adam(model.parameters(), 5e-3)
    sched = torch.optim.lr_scheduler.ReduceLROnPlateau(opt, patience=1, factor=0.5)
    losses = []
    with track(opt, model):
        for i in range(steps):
            model.train()
            x = torch.randn(48, 10)
            loss = F.cross_entropy(model(x), x[:, :3].argmax(1))
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
            if i % 20 == 19:
                model.eval()
                with torch.inference_mode():
                    v = torch.randn(256, 10)
                    sched.step(F.cross_entropy(model(v), v[:, :3].argmax(1)))
    return losses
