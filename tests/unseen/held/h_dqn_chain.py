import copy

import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 150
EXPECTED = None


def train(track, steps):
    torch.manual_seed(220)
    q = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 2))
    target = copy.deepcopy(q).eval()
    opt = torch.optim.Adam(q.parameters(), 2e-3)
    replay, s = [], 0
    losses = []
    with track(opt, q):
        while len(losses) < steps:
            x = F.one_hot(torch.tensor(s), 6).float()
            with torch.no_grad():
                a = int(q(x).argmax()) if torch.rand(()) > 0.3 else int(torch.randint(0, 2, ()))
            s2 = min(5, s + 1) if a == 1 else max(0, s - 1)
            done = s2 == 5
            replay.append((s, a, float(done), s2, float(done)))
            s = 0 if done else s2
            if len(replay) < 32:
                continue
            b = [replay[int(k)] for k in torch.randint(0, len(replay), (32,))]
            S, A, R, S2, D = (torch.tensor(v) for v in zip(*b))
            with torch.no_grad():
                y = R + 0.95 * (1 - D) * target(F.one_hot(S2, 6).float()).max(1)[0]
            loss = F.smooth_l1_loss(q(F.one_hot(S, 6).float()).gather(1, A[:, None])[:, 0], y)
            opt.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_value_(q.parameters(), 1.0)
            opt.step()
            if len(losses) % 15 == 0:
                target.load_state_dict(q.state_dict())
            losses.append(loss.item())
    return losses
