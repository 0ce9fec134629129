import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 80
EXPECTED = dict(rules={"zero"}, module=("actor", "actor.0", "actor.2"), causes={"clamped", "masked"}, optimizer="optimizer", at=1,
                say="the stored log-probability lacks its normalising constant, so that every ratio lies beyond the clip and advantages are positive: the policy gets no gradient")


def train(track, steps):
    torch.manual_seed(63)
    net = nn.ModuleDict({"actor": nn.Sequential(nn.Linear(5, 32), nn.Tanh(), nn.Linear(32, 3)), "critic": nn.Sequential(nn.Linear(5, 32), nn.Tanh(), nn.Linear(32, 1))})
    opt = torch.optim.Adam(net.parameters(), 1e-3)
    losses = []
    with track(opt, net):
        for _ in range(steps):
            s = torch.randn(64, 5)
            with torch.no_grad():
                d = torch.distributions.Categorical(logits=net["actor"](s))
                a = d.sample()
                old = d.log_prob(a) - 4.0
            ret = (a == s[:, :3].argmax(1)).float()
            adv = ret + 0.1
            ratio = (torch.distributions.Categorical(logits=net["actor"](s)).log_prob(a) - old).exp()
            pi_loss = -torch.min(ratio * adv, torch.clamp(ratio, 0.8, 1.2) * adv).mean()
            loss = pi_loss + 0.5 * F.mse_loss(net["critic"](s).squeeze(1), ret)
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
