import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = dict(rules={"zero"}, module=("layer", "layer.lora_a", "layer.lora_b"), causes={"zero-weight", "zero-input"}, optimizer="optimizer", at=1,
                say="both LoRA matrices are initialised to zero: each one's gradient is multiplied by the other, and neither ever moves")


class LoraLinear(nn.Module):
    def __init__(self, base, r):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_a = nn.Linear(base.in_features, r, bias=False)
        self.lora_b = nn.Linear(r, base.out_features, bias=False)
        nn.init.zeros_(self.lora_a.weight)
        nn.init.zeros_(self.lora_b.weight)

    def forward(self, x):
        return self.base(x) + self.lora_b(self.lora_a(x))


def train(track, steps):
    torch.manual_seed(41)
    model = nn.Sequential()
    model.add_module("layer", LoraLinear(nn.Linear(16, 32), 4))
    model.add_module("act", nn.ReLU())
    model.add_module("head", nn.Linear(32, 2))
    opt = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-2)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(32, 16)
            loss = F.cross_entropy(model(x), (x[:, 0] > x[:, 1]).long())
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
