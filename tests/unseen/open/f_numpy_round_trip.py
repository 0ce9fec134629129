import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = dict(rules={"zero"}, module=("embed", "embed.0", "embed.2"), causes={"detached"}, optimizer="optimizer", at=1,
                say="the embeddings make a round trip through NumPy for sorting, which leaves autograd: the embedding net is out of the graph")


class Ranker(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 8))
        self.score = nn.Linear(8, 1)

    def forward(self, x):
        e = self.embed(x)
        order = e[:, :, 0].detach().argsort(1)
        e = torch.tensor([[row[j].tolist() for j in idx] for row, idx in zip(e.detach().numpy(), order.numpy())])
        return self.score(e).squeeze(-1), order


def train(track, steps):
    torch.manual_seed(72)
    model = Ranker()
    opt = torch.optim.Adam(model.parameters(), 2e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.randn(8, 5, 6)
            s, order = model(x)
            rel = x[..., 0].gather(1, order)
            loss = F.kl_div(s.log_softmax(1), rel.softmax(1), reduction="batchmean")
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
