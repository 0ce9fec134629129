"""Run it; exits with 1 where something has grown or is missing."""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

import gradwatch
from gradwatch.records import Alert, StepRecord
from tests.soak.written import in_event_files, in_jsonl

# Between two samples of what the process takes up; what it takes up after the first is what it may take up.
SAMPLED_EVERY = 10_000
# An ill of a few steps in so many: the loss is lost, or explodes.
ILL_EVERY = 5_000
# What all alerts of a run and their incidents take up, which a watch keeps; and what an allocator does by itself.
MAY_GROW_BYTES = 8 << 20


class Sample(NamedTuple):
    """What the process takes up."""

    step: int
    seconds: float
    resident: int
    descriptors: int
    threads: int


class Counting:
    """A sink of a user's: counts alerts, and reads one record of each batch."""

    def __init__(self) -> None:
        self.steps = 0
        self.alerts: Counter[str] = Counter()

    def write(self, records: Sequence[StepRecord], alerts: Sequence[Alert]) -> None:
        self.steps += len(records)
        self.alerts.update(alert.state for alert in alerts)
        if records:
            assert math.isfinite(records[0].time)

    def close(self) -> None:
        pass


def sample(step: int, began: float) -> Sample:
    """The least of a few looks: a scrape is served by a thread and a socket that are there for a moment."""
    looks = []
    for _ in range(5):
        looks.append((len(list(Path("/proc/self/fd").iterdir())), threading.active_count()))
        time.sleep(0.02)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    descriptors, threads = (min(column) for column in zip(*looks, strict=True))
    return Sample(step, time.monotonic() - began, pages * os.sysconf("SC_PAGE_SIZE"), descriptors, threads)


def training(steps: int, until: float) -> Iterator[int]:
    """Trains, and yields after each step; ``optimizer`` and ``net`` are its attributes in the first yield."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4)
    yield net, optimizer  # type: ignore[misc]
    batches = torch.randn(64, 8, 4)
    for step in range(1, steps + 1):
        if time.monotonic() >= until:
            return
        phase = step % ILL_EVERY
        ill = 0.0 if 1000 <= phase < 1006 else 1e6 if phase == 3000 else 1.0
        optimizer.zero_grad()
        (net(batches[step % 64]).square().mean() * ill).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        yield step


def soak(folder: Path, steps: int, minutes: float) -> dict[str, object]:
    """Everything that was measured."""
    loop = training(steps, time.monotonic() + 60.0 * minutes)
    net, optimizer = next(loop)  # type: ignore[misc]
    told: Counter[str] = Counter()
    counting = Counting()
    prometheus = gradwatch.sinks.Prometheus(port=0)
    sinks = [
        gradwatch.sinks.Console(),
        gradwatch.sinks.Jsonl(folder / "run.jsonl", max_bytes=100 << 20, keep=1000),
        gradwatch.sinks.TensorBoard(folder / "tensorboard"),
        prometheus,
        counting,
    ]
    watch = gradwatch.track(optimizer, net, sinks=sinks, on_alert=lambda alert: told.update([alert.state]))
    samples: list[Sample] = []
    done, began = 0, time.monotonic()
    with watch:
        command = [sys.executable, str(Path(__file__).with_name("scraper.py")), str(prometheus.url)]
        scraper = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for done in loop:
            if done % SAMPLED_EVERY == 0:
                samples.append(sample(done, began))
                print(f"# {samples[-1]}", flush=True)
        seconds = time.monotonic() - began
        watch.flush()
        time.sleep(3.0)  # so that it is scraped once more
        scraped = json.loads(scraper.communicate("\n")[0])
        health = watch.health()
    jsonl_steps, jsonl_alerts, bad_lines = in_jsonl(folder / "run.jsonl")
    curve_steps, texts = in_event_files(folder / "tensorboard", "optimizer")
    return {
        "steps": done,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(time.process_time(), 1),
        "alerts": dict(told),
        "watch": sum(Counter(alert.state for alert in watch.alerts).values()),
        "counting": {"steps": counting.steps, "alerts": dict(counting.alerts)},
        "jsonl": {"steps": jsonl_steps, "alerts": jsonl_alerts, "bad": bad_lines},
        "tensorboard": {"steps": curve_steps, "alerts": texts},
        "scraped": scraped,
        "dropped": dict(health.dropped_by_sink),
        "sink_errors": dict(health.sink_errors),
        "internal_errors": health.internal_errors,
        "samples": [one._asdict() for one in samples],
    }


def faults(found: dict[str, object]) -> Iterator[str]:
    """What has grown, and what is missing."""
    samples = [Sample(**one) for one in found["samples"]]  # type: ignore[attr-defined]
    if samples:
        first = samples[0]
        if max(one.resident for one in samples) > first.resident + MAY_GROW_BYTES:
            yield "resident memory has grown"
        for name in ("descriptors", "threads"):
            if {getattr(one, name) for one in samples} != {getattr(first, name)}:
                yield f"the number of {name} has changed"
    steps, alerts = found["steps"], found["alerts"]
    events = sum(alerts.values())  # type: ignore[attr-defined]
    expected = {
        "counting": {"steps": steps, "alerts": alerts},
        "watch": events,
        "jsonl": {"steps": steps, "alerts": events, "bad": 0},
        "tensorboard": {"steps": steps, "alerts": events},
        "internal_errors": 0,
    }
    yield from (f"{name}: {found[name]}, not {value}" for name, value in expected.items() if found[name] != value)
    scraped: dict[str, float] = found["scraped"]  # type: ignore[assignment]
    if (scraped["steps"], scraped["alerts"]) != (steps, alerts.get("firing", 0)):  # type: ignore[attr-defined]
        yield f"the last scrape showed {scraped}"
    if scraped["failed"] or scraped["went_back"]:
        yield "a scrape failed, or went back"
    for name in ("dropped", "sink_errors"):
        if any(found[name].values()):  # type: ignore[attr-defined]
            yield f"{name}: {found[name]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--minutes", type=float, default=math.inf, help="end by then, however many steps that are")
    parser.add_argument("--out", type=Path, help="write what was measured to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = soak(Path(folder), options.steps, options.minutes)
    ill = list(faults(found))
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps({**found, "faults": ill}, indent=1))
    print(json.dumps({**found, "samples": len(found["samples"])}))  # type: ignore[arg-type]
    print("\n".join(ill) or f"Nothing has grown or got lost in {found['steps']} steps.")
    return bool(ill)


if __name__ == "__main__":
    sys.exit(main())
