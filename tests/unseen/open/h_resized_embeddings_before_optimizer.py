import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 80
EXPECTED = None


def train(track, steps):
    torch.manual_seed(216)
    net = nn.ModuleDict({"emb": nn.Embedding(20, 16), "gru": nn.GRU(16, 24, batch_first=True), "out": nn.Linear(24, 26)})
    new = nn.Embedding(26, 16)
    with torch.no_grad():
        new.weight[:20] = net["emb"].weight
        new.weight[20:] = net["emb"].weight.mean(0)
    net["emb"] = new
    opt = torch.optim.AdamW(net.parameters(), 4e-3)
    losses = []
    with track(opt, net):
        for _ in range(steps):
            t = torch.randint(0, 20, (8, 8))
            t[:, 0] = torch.randint(20, 26, (8,))
            loss = F.cross_entropy(net["out"](net["gru"](net["emb"](t))[0]).flatten(0, 1), t.flatten())
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
