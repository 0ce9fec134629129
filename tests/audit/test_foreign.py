"""The log of the report that began this project, and what its author needed to know."""

import torch
from torch.utils.tensorboard import SummaryWriter

from gradwatch.audit import audit
from gradwatch.cli import main


def sum_of_norms(module):
    return sum(parameter.grad.norm().item() for parameter in module.parameters())


def train(folder, norm_of, steps=4):
    """As the agent of the report: the whole is its L2 norm, that of a part is what the caller makes it."""
    torch.manual_seed(0)
    cnn = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Tanh(), torch.nn.Conv2d(4, 1, 3))
    mlp = torch.nn.Linear(16, 1)
    actor = torch.nn.ModuleList([cnn, mlp])
    with SummaryWriter(str(folder)) as writer:
        for step in range(100, 100 * steps + 100, 100):
            actor.zero_grad()
            (cnn(torch.randn(8, 1, 8, 8)).square().mean() * 1e3 + mlp(torch.zeros(1, 16)).sum() * 0.0).backward()
            before = torch.nn.utils.clip_grad_norm_(actor.parameters(), 1.0).item()
            after = sum(parameter.grad.norm().item() ** 2 for parameter in actor.parameters()) ** 0.5
            writer.add_scalar("train/actor_loss", 0.0, step)
            writer.add_scalar("debug/actor_grad_norm_BEFORE_clip", before, step)
            writer.add_scalar("debug/actor_grad_norm_AFTER_clip", after, step)
            writer.add_scalar("debug/actor_grad_clip_ratio", after / max(before, 1e-8), step)
            for name, part in (("cnn", cnn), ("mlp", mlp)):
                writer.add_scalar(f"debug/actor_{name}_grad_norm_AFTER_clip", norm_of(part), step)


def test_a_sum_of_norms_is_above_the_whole(tmp_path, capsys):
    train(tmp_path, sum_of_norms)
    assert main(["audit", str(tmp_path)]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith("1 contradiction: 4 steps, 4 curves of norms looked at")
    assert "debug/actor_cnn_grad_norm_AFTER_clip is above debug/actor_grad_norm_AFTER_clip" in said
    assert "in 4 of 4 steps" in said
    assert "a sum of the norms of its tensors" in said
    assert "debug/actor_mlp_grad_norm_AFTER_clip is exactly 0 at all 4 steps" in said
    assert "parts of it, by their names: debug/actor_cnn (after), debug/actor_mlp (after)" in said
    assert "1 other tag" in said


def test_the_l2_norm_contradicts_nothing(tmp_path):
    train(tmp_path, lambda module: torch.nn.utils.get_total_norm([p.grad for p in module.parameters()]).item())
    (found,) = audit(tmp_path)
    assert found.breaches == []
    assert any("exactly 0" in remark for remark in found.remarks)
