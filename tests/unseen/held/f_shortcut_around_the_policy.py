import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 150
EXPECTED = dict(rules={"zero", "explosion", "growth", "clip-saturated"}, module=("actor_mlp", "actor_mlp.0", "actor_mlp.2", None), causes={"saturated-tanh", "shortcut"}, optimizer="actor", at=60, patience=60,
                say="the actor's features feed the Q-function directly while its MLP goes into saturation behind tanh: the CNN holds the whole norm, the MLP none")


def train(track, steps):
    torch.manual_seed(103)
    enc = nn.Sequential(nn.Linear(6, 16), nn.ReLU())
    mlp = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 2))
    critic = nn.Sequential(nn.Linear(18, 32), nn.ReLU(), nn.Linear(32, 1))
    a_opt = torch.optim.Adam([*enc.parameters(), *mlp.parameters()], 1e-3)
    c_opt = torch.optim.Adam(critic.parameters(), 1e-3)
    losses = []
    with track({"actor": a_opt, "critic": c_opt}, {"actor_enc": enc, "actor_mlp": mlp, "critic": critic}):
        for i in range(1, steps + 1):
            s = torch.randn(64, 6)
            if i == 60:
                with torch.no_grad():
                    mlp[2].weight.mul_(20.0)
                    mlp[2].bias.copy_(torch.tensor([300.0, -300.0]))  # a 'warm start' of another scale
            f = enc(s)
            act = torch.tanh(mlp(f))
            a_loss = -critic(torch.cat([f, act], 1)).mean()
            a_opt.zero_grad()
            a_loss.backward()
            torch.nn.utils.clip_grad_norm_([*enc.parameters(), *mlp.parameters()], 10.0)
            a_opt.step()
            with torch.no_grad():
                f = enc(s)
            a = torch.rand(64, 2) * 2 - 1
            r = -(a - s[:, :2].tanh()).pow(2).sum(1, keepdim=True)
            c_loss = F.mse_loss(critic(torch.cat([f, a], 1)), r)
            c_opt.zero_grad()
            c_loss.backward()
            c_opt.step()
            losses.append(c_loss.item())
    return losses
