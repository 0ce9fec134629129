import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 66
EXPECTED = None


def train(track, steps):
    torch.manual_seed(235)
    model = nn.Sequential(nn.Embedding(20, 16), nn.Linear(16, 20))
    opt = torch.optim.Adam(model.parameters(), 5e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps // 3):  # an epoch has 11 batches; 4 to a step, 3 in the last
            for i in range(11):
                t = torch.randint(0, 20, (4, 8))
                loss = F.cross_entropy(model(t).flatten(0, 1), ((t + 7) % 20).flatten())
                (loss / 4).backward()
                if (i + 1) % 4 == 0 or i == 10:
                    opt.step()
                    opt.zero_grad(set_to_none=True)
                losses.append(loss.item())
    return losses
