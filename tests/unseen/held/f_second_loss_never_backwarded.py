import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = dict(rules={"zero", "stale"}, module=("inverse", "inverse.0", "inverse.2", None), causes={"no-backward"}, optimizer="inverse", at=1,
                say="the inverse model's optimizer is stepped each iteration, but its loss is only logged: no backward ever writes its gradients")


def train(track, steps):
    torch.manual_seed(79)
    forward_model = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 4))
    inverse = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))
    f_opt = torch.optim.Adam(forward_model.parameters(), 1e-3)
    i_opt = torch.optim.Adam(inverse.parameters(), 1e-3)
    losses = []
    with track({"forward": f_opt, "inverse": i_opt}, {"forward": forward_model, "inverse": inverse}):
        for _ in range(steps):
            s, a = torch.randn(32, 4), torch.randn(32, 2)
            s2 = s + 0.5 * torch.cat([a, -a], 1)
            f_loss = F.mse_loss(forward_model(torch.cat([s, a], 1)), s2)
            i_loss = F.mse_loss(inverse(torch.cat([s, s2], 1)), a)
            f_opt.zero_grad()
            i_opt.zero_grad()
            f_loss.backward()
            f_opt.step()
            i_opt.step()
            losses.append(f_loss.item() + 0 * i_loss.item())
    return losses
