import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 80
EXPECTED = None


def train(track, steps):
    torch.manual_seed(218)
    bag = nn.EmbeddingBag(60, 16, sparse=True)
    dense = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1))
    s_opt = torch.optim.SparseAdam(bag.parameters(), 3e-2)
    d_opt = torch.optim.AdamW(dense.parameters(), 2e-3)
    losses = []
    with track({"sparse": s_opt, "dense": d_opt}, {"bag": bag, "mlp": dense}):
        for _ in range(steps):
            ids = torch.randint(0, 60, (32, 5))
            y = (ids.float().mean(1, keepdim=True) > 29.5).float()
            loss = F.binary_cross_entropy_with_logits(dense(bag(ids)), y)
            s_opt.zero_grad()
            d_opt.zero_grad()
            loss.backward()
            s_opt.step()
            d_opt.step()
            losses.append(loss.item())
    return losses
