import torch
import torch.nn as nn

STEPS = 60
EXPECTED = dict(rules={"nonfinite"}, module=None, causes={"nonfinite-loss", "nonfinite-op"}, optimizer="optimizer", at=25,
                say="the prompt fills the whole context, every label is -100, and the mean over no token is 0/0")


def train(track, steps):
    torch.manual_seed(5)
    model = nn.Sequential(nn.Embedding(30, 24), nn.Linear(24, 48), nn.GELU(), nn.Linear(48, 30))
    opt = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    with track(opt, model):
        for i in range(1, steps + 1):
            tok = torch.randint(0, 30, (4, 12))
            labels = (tok + 1) % 30
            prompt = 5 if i != 25 else 12
            labels[:, :prompt] = -100
            keep = labels != -100
            logp = model(tok).log_softmax(-1)
            each = -logp.gather(2, labels.clamp(min=0)[..., None])[..., 0]
            loss = (each * keep).sum() / keep.sum()
            opt.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            opt.step()
            losses.append(loss.item())
    return losses
