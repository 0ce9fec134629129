import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 70
EXPECTED = None


class Deq(nn.Module):
    def __init__(self, d=16):
        super().__init__()
        self.inp = nn.Linear(6, d)
        self.w = nn.Linear(d, d, bias=False)
        self.out = nn.Linear(d, 3)
        with torch.no_grad():
            self.w.weight.mul_(0.3)

    def f(self, z, x):
        return torch.tanh(self.w(z) + x)

    def forward(self, inp):
        x = self.inp(inp)
        with torch.no_grad():
            z = torch.zeros_like(x)
            for _ in range(20):
                z = self.f(z, x)
        z = self.f(z, x)
        z0 = z.clone().detach().requires_grad_()
        f0 = self.f(z0, x)

        def backward(g):
            v = g
            for _ in range(15):
                v = torch.autograd.grad(f0, z0, v, retain_graph=True)[0] + g
            return v

        if z.requires_grad:
            z.register_hook(backward)
        return self.out(z)


def train(track, steps):
    torch.manual_seed(274)
    model = Deq()
    opt = torch.optim.Adam(model.parameters(), 5e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(32, 6)
            loss = F.cross_entropy(model(x), x[:, :3].argmax(1))
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
