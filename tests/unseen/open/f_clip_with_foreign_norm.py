import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 70
EXPECTED = dict(rules={"clip-broken"}, module=None, causes=None, optimizer="optimizer", at=1,
                say="clip_grads_with_norm_ is given the head's norm as the total norm of the whole model: the result is above the limit")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(12, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU())
        self.head = nn.Linear(48, 1)

    def forward(self, x):
        return self.head(self.body(x))


def train(track, steps):
    torch.manual_seed(96)
    model = Net()
    opt = torch.optim.AdamW(model.parameters(), 1e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(32, 12)
            loss = F.mse_loss(model(x), 3 * x.sum(1, keepdim=True))
            opt.zero_grad()
            loss.backward()
            total = torch.nn.utils.get_total_norm([p.grad for p in model.head.parameters()])
            torch.nn.utils.clip_grads_with_norm_(list(model.parameters()), 0.5, total)
            opt.step()
            losses.append(loss.item())
    return losses
