import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = dict(rules={"zero"}, module=("features", "features.0"), causes={"dead-relu"}, optimizer="optimizer", at=1,
                say="the convolution's bias starts at -10: no unit of its ReLU ever fires, so it can learn nothing")


class Cnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.classifier = nn.Linear(6 * 16, 4)

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


def train(track, steps):
    torch.manual_seed(35)
    model = Cnn()
    nn.init.constant_(model.features[0].bias, -10.0)
    opt = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    with track(opt, model):
        for _ in range(steps):
            x = torch.rand(16, 1, 8, 8)
            y = torch.randint(0, 4, (16,))
            x[torch.arange(16), 0, y] += 1
            loss = F.cross_entropy(model(x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
