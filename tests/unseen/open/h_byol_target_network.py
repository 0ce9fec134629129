import copy

import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 100
EXPECTED = None


def train(track, steps):
    torch.manual_seed(211)
    online = nn.Sequential(nn.Linear(16, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Linear(48, 16))
    predictor = nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 16))
    target = copy.deepcopy(online)
    for p in target.parameters():
        p.requires_grad = False
    opt = torch.optim.SGD([*online.parameters(), *predictor.parameters()], 0.05, momentum=0.9, weight_decay=1e-4)
    losses = []
    with track(opt, {"online": online, "predictor": predictor}):
        for _ in range(steps):
            x = torch.randn(48, 16)
            a, b = x + 0.3 * torch.randn_like(x), x + 0.3 * torch.randn_like(x)
            with torch.no_grad():
                ta, tb = target(a), target(b)
            loss = 4 - 2 * F.cosine_similarity(predictor(online(a)), tb).mean() - 2 * F.cosine_similarity(predictor(online(b)), ta).mean()
            opt.zero_grad()
            loss.backward()
            opt.step()
            with torch.no_grad():
                for t, o in zip(target.parameters(), online.parameters()):
                    t.mul_(0.99).add_(o, alpha=0.01)
            losses.append(loss.item())
    return losses
