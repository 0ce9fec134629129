"""A real run in a real terminal, with each kind of bar, compared as text with the same run without a ``Console``."""

from __future__ import annotations

import re

import pytest

from tests.sinks.screens import Shown, redirected, run

SAID = range(0, 60, 10)
TOLD = r"<(?:print\d+|log\d+|half\d+andwhole|before|after)>"

MODEL = """
import contextlib, logging, os, sys, time, warnings
import torch, gradwatch
from torch import nn
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))
optimizer = torch.optim.SGD(net.parameters(), 0.01)
logging.basicConfig(level=logging.INFO, format="log: %(message)s")
logging.getLogger().setLevel(logging.INFO)
def options():
    return dict(sinks=[gradwatch.sinks.Console(interval=0.0)]) if SHOWN else {}
def watched():
    return gradwatch.track(optimizer, net, **options()) if SHOWN else contextlib.nullcontext()
def step(i):
    optimizer.zero_grad()
    net(torch.randn(8, 4)).square().mean().backward()
    optimizer.step()
    time.sleep(0.005)
    if i % 10 == 0:
        print(f"<print {i}>")
        logging.info(f"<log {i}>")
        print(f"<half {i}", end="", flush=True)
        print(" and whole>")
print("<before>")
"""

PROGRAMS = {
    "plain": "with watched():\n    for i in range(60): step(i)\n",
    "tqdm inside": "from tqdm import tqdm\nwith watched():\n    for i in tqdm(range(60)): step(i)\n",
    "tqdm outside": "from tqdm import tqdm\nbar = tqdm(range(60))\nwith watched():\n    for i in bar: step(i)\nbar.close()\n",
    "two of tqdm": (
        "from tqdm import tqdm\nwith watched():\n"
        "    for j in tqdm(range(2)):\n        for i in tqdm(range(30), leave=False): step(30 * j + i)\n"
    ),
    "rich inside": "from rich.progress import track\nwith watched():\n    for i in track(range(60)): step(i)\n",
    "rich outside": (
        "from rich.progress import Progress\nwith Progress() as bar:\n    task = bar.add_task('<bar>', total=60)\n"
        "    with watched():\n        for i in range(60): step(i); bar.advance(task)\n"
    ),
    "Lightning": """
import pytorch_lightning as pl
warnings.simplefilter("ignore")
class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = net
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)
    def training_step(self, batch, i):
        time.sleep(0.005)
        if i % 10 == 0:
            print(f"<print {i}>")
            logging.info(f"<log {i}>")
            print(f"<half {i}", end="", flush=True)
            print(" and whole>")
        return net(batch).square().mean()
from gradwatch.integrations.lightning import Callback
callbacks = [Callback(**options())] if SHOWN else []
trainer = pl.Trainer(accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, callbacks=callbacks)
trainer.fit(Module(), torch.utils.data.DataLoader(torch.randn(480, 4), batch_size=8))
""",
    "transformers": """
import tempfile, transformers
class Says(transformers.TrainerCallback):
    def on_step_begin(self, args, state, control, **_):
        i = state.global_step
        time.sleep(0.005)
        if i % 10 == 0:
            print(f"<print {i}>")
            logging.info(f"<log {i}>")
            print(f"<half {i}", end="", flush=True)
            print(" and whole>")
from gradwatch.integrations.transformers import Callback
config = transformers.GPT2Config(vocab_size=9, n_positions=4, n_embd=4, n_layer=1, n_head=1, bos_token_id=1, eos_token_id=1)
settings = transformers.TrainingArguments(
    tempfile.mkdtemp(), max_steps=60, per_device_train_batch_size=2, use_cpu=True, report_to=[], save_strategy="no",
    logging_steps=1000)
callbacks = [Says(), Callback(**options())] if SHOWN else [Says()]
data = [dict(input_ids=row, labels=row) for row in torch.randint(9, (120, 4))]
transformers.Trainer(model=transformers.GPT2LMHeadModel(config), args=settings, train_dataset=data, callbacks=callbacks).train()
""",
}
# As they were filed: a print without an end, markup, a carriage return; and workers that print, forked meanwhile.
PROGRAMS["odd prints"] = """
with watched():
    for i in range(30):
        step(2 * i)
        print("saved to [/home/user/run]", end="", flush=True)
        print(" [red]loss[/red] :smile:", flush=True)
        print(f"\\rstep {i}", end="", flush=True)
    print()
"""
PROGRAMS["workers that print"] = """
class Data(torch.utils.data.Dataset):
    def __len__(self): return 20
    def __getitem__(self, i): return torch.randn(4)
def worker(k): print("worker", k, "is up")
with watched():
    for i in range(6):
        step(10 * i)
        for x in torch.utils.data.DataLoader(Data(), batch_size=5, num_workers=2, worker_init_fn=worker, timeout=60,
            multiprocessing_context="fork"):
            optimizer.zero_grad(); net(x).square().mean().backward(); optimizer.step()
"""
THE_END = "\nprint('<after>')\n"

# In a larger terminal lines break elsewhere, and more of them are seen: whatever draws the bar.
SIZED = [
    *((bar, (80, 24)) for bar in PROGRAMS),
    *((bar, (140, 40)) for bar in ("plain", "two of tqdm", "rich outside")),
]


def said() -> list[str]:
    """What each program says, in this order."""
    lines = [f"<{what}>" for i in SAID for what in (f"print{i}", f"log{i}", f"half{i}andwhole")]
    return ["<before>", *lines, "<after>"]


def told(shown: Shown, columns: int) -> list[str]:
    """What a reader finds of it: also what a bar has pushed over the end of a line."""
    # Without spaces, since rich puts what is not a whole line yet on a line of its own.
    everything = "".join(line.ljust(columns) for line in shown.lines).replace(" ", "")
    return re.findall(TOLD, everything)


@pytest.mark.interop
@pytest.mark.parametrize(("bar", "size"), SIZED, ids=str)
def test_every_line_of_the_program_is_there_once_and_no_more_of_the_bar_than_without(
    bar: str, size: tuple[int, int]
) -> None:
    bare, shown = (run(f"SHOWN = {on}{MODEL}{PROGRAMS[bar]}{THE_END}", *size) for on in (False, True))
    assert (bare.status, shown.status) == (0, 0), shown.text
    assert sorted(told(shown, size[0])) == sorted(told(bare, size[0])) == sorted(said())
    assert told(shown, size[0]) == told(bare, size[0])
    for odd in ("saved to [/home/user/run] [red]loss[/red] :smile:", "is up"):
        assert shown.text.count(odd) == bare.text.count(odd)
    bars = [sum("%" in line and "of the time" not in line for line in one.lines) for one in (bare, shown)]
    assert bars[1] <= bars[0]
    assert sum("norm (L2)" in line for line in shown.lines) == 1
    assert shown.margins is None
    assert "gradwatch: no alert fired." in shown.text


@pytest.mark.interop
@pytest.mark.parametrize("bar", PROGRAMS)
def test_where_there_is_no_terminal_every_line_of_the_program_is_there_once(bar: str) -> None:
    texts = []
    for on in (False, True):
        status, out, err = redirected(f"SHOWN = {on}{MODEL}{PROGRAMS[bar]}{THE_END}")
        assert status == 0, err
        texts.append("".join((out + err).split()))
    found = [re.findall(TOLD, text) for text in texts]
    assert found[0] == found[1]
    assert sorted(found[1]) == sorted(said())
    assert "gradwatch: no alert fired.\n" in out
