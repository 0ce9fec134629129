import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 80
EXPECTED = None


def train(track, steps):
    torch.manual_seed(305)
    net = nn.Sequential(nn.Linear(10, 32), nn.GELU(), nn.Linear(32, 32), nn.GELU(), nn.Linear(32, 3))
    mats = [p for p in net.parameters() if p.dim() == 2]
    vecs = [p for p in net.parameters() if p.dim() == 1]
    m_opt, v_opt = torch.optim.SGD(mats, 0.1, momentum=0.9), torch.optim.AdamW(vecs, 3e-3)
    losses = []
    with track({"matrices": m_opt, "vectors": v_opt}, net):
        for _ in range(steps):
            x = torch.randn(64, 10)
            loss = F.cross_entropy(net(x), x[:, :3].argmax(1))
            net.zero_grad(set_to_none=True)
            loss.backward()
            m_opt.step()
            v_opt.step()
            losses.append(loss.item())
    return losses
