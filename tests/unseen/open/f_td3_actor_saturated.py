import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 80
EXPECTED = dict(rules={"zero", "vanishing"}, module=("actor", "actor.net", "actor.net.0", "actor.net.2"), causes={"saturated-tanh"}, optimizer="actor", at=1,
                say="the observations are raw (thousands): the actor's tanh is exactly +-1 for all, its gradient exactly 0")


class Actor(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))

    def forward(self, s):
        return torch.tanh(self.net(s))


def train(track, steps):
    torch.manual_seed(38)
    actor = Actor()
    critic = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 1))
    a_opt = torch.optim.Adam(actor.parameters(), 3e-4)
    c_opt = torch.optim.Adam(critic.parameters(), 3e-4)
    losses = []
    with track({"actor": a_opt, "critic": c_opt}, {"actor": actor, "critic": critic}):
        for i in range(steps):
            raw = 5000 + 4000 * torch.rand(64, 4)
            n = raw / 5000 - 1
            a = torch.rand(64, 2) * 2 - 1
            r = -(a - n[:, :2]).pow(2).sum(1, keepdim=True)
            c_loss = F.mse_loss(critic(torch.cat([n, a], 1)), r)
            c_opt.zero_grad()
            c_loss.backward()
            c_opt.step()
            if i % 2 == 0:
                a_loss = -critic(torch.cat([n, actor(raw)], 1)).mean()
                a_opt.zero_grad()
                a_loss.backward()
                a_opt.step()
            losses.append(c_loss.item())
    return losses
