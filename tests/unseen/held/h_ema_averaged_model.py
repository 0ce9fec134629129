import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 80
EXPECTED = None


def train(track, steps):
    torch.manual_seed(219)
    model = nn.Sequential(nn.Linear(8, 32), nn.SiLU(), nn.Linear(32, 1))
    ema = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.98))
    opt = torch.optim.Adam(model.parameters(), 4e-3)
    losses = []
    with track(opt, model):
        for i in range(steps):
            x = torch.randn(64, 8)
            loss = F.mse_loss(model(x), torch.sin(x[:, :1]) + x[:, 1:2])
            opt.zero_grad()
            loss.backward()
            opt.step()
            ema.update_parameters(model)
            if i % 20 == 19:
                with torch.no_grad():
                    ema(x)
            losses.append(loss.item())
    return losses
