"""What a run tells while it trains: to TensorBoard, to the terminal and to the checklist."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import rich
import torch
from torch import Tensor
from torch.utils.tensorboard.writer import SummaryWriter

import gradwatch
from examples.carla_td3.checklist import Checklist
from examples.carla_td3.evaluation import Episode, Evaluation
from examples.carla_td3.options import Options
from examples.carla_td3.questions import Questions
from examples.carla_td3.transfer import downloaded

__all__ = ["Report"]

# Losses stay on the device and are fetched so many updates at a time.
FETCHED = 50
# Decisions between two measurements of the pace, and between two lines about it on the terminal.
RATED, TOLD = 100, 500


class Report:
    """Listens to the training loop.

    Args:
        options: of the run.
        folder: where its logs are.
        start: decisions made before, in an earlier process.
    """

    def __init__(self, options: Options, folder: Path, start: int) -> None:
        self._options = options
        self._writer = SummaryWriter(str(folder), purge_step=start + 1 if start else None)
        self.checklist = Checklist(options.actor_clip, options.critic_clip)
        self._episode = Episode()
        self._waiting: list[tuple[int, Mapping[str, Tensor]]] = []
        self._rated = start, time.perf_counter()
        self.sinks: list[Any] = [
            gradwatch.sinks.Console(),
            gradwatch.sinks.TensorBoard(self._writer, prefix="debug"),
            gradwatch.sinks.Jsonl(folder / "gradwatch.jsonl"),
            self.checklist,
        ]
        self.questions = Questions() if options.wrong_metric else None
        if self.questions is not None:
            self.sinks.append(self.questions)
        if options.prometheus_port:
            self.sinks.append(gradwatch.sinks.Prometheus(port=options.prometheus_port))

    def stepped(self, step: int, reward: float, truncated: bool, info: dict[str, Any]) -> None:
        """A decision was driven."""
        self._episode.take(reward, info, truncated)
        if self._options.debug:
            for name, value in info["reward_terms"].items():
                self._scalar(f"reward/{name}", value, step)
        if self._episode.end:
            self._ended(step)
        if step % RATED == 0:
            self._rate(step)

    def updated(self, step: int, said: Mapping[str, Tensor]) -> None:
        """An update was made; ``said`` are 0-dim tensors, which are not read now."""
        self._waiting.append((step, said))
        if len(self._waiting) >= FETCHED:
            self.fetch()

    def evaluated(self, step: int, found: Evaluation) -> None:
        """The policy was judged."""
        if self._options.env == "carla":
            # A server has one world: the evaluation has taken the place of the episode.
            self._episode = Episode()
        self.compared("trained" if step else "untrained", found)
        for name, value in (
            ("reward", found.reward),
            ("route", found.route),
            ("arrived", found.ends["finished"] / len(found.episodes)),
            ("collided", found.ends["collided"] / len(found.episodes)),
            ("action_spread", found.spread),
            ("saturated", found.saturated),
        ):
            self._scalar(f"eval/{name}", value, step)

    def compared(self, driver: str, found: Evaluation) -> None:
        """A driver was judged."""
        self.checklist.take_evaluation(driver, found)
        self.say(f"evaluation, {driver}: {found}")

    def fetch(self) -> None:
        """Write what waits on the device, read in one go."""
        waiting, self._waiting = self._waiting, []
        told = [value for _, said in waiting for value in said.values()]
        values = iter(downloaded(torch.stack(told)).tolist() if told else ())
        for step, said in waiting:
            for name in said:
                self._scalar(name, value := next(values), step)
                if self.questions is not None:
                    self.questions.take(name, value)
                if name == "train/actor_loss":
                    self.checklist.take_actor_loss(value)

    def close(self) -> None:
        """Write everything out."""
        self.fetch()
        self._writer.close()

    def state_dict(self) -> dict[str, Any]:
        self.fetch()
        return {"episode": asdict(self._episode), "checklist": self.checklist.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if self._options.env != "carla":
            self._episode = Episode(**state["episode"])
        self.checklist.load_state_dict(state["checklist"])

    def say(self, line: str) -> None:
        """A line on the terminal."""
        rich.get_console().print(line, markup=False, highlight=False, soft_wrap=True)

    def _rate(self, step: int) -> None:
        """Decisions a second since the time before, with updates and evaluations."""
        (before, then), now = self._rated, time.perf_counter()
        self._rated = step, now
        rate = (step - before) / (now - then)
        self._scalar("train/steps_per_second", rate, step)
        if step % TOLD == 0:
            self.say(f"step {step}: {rate:.1f} steps a second")

    def _ended(self, step: int) -> None:
        episode, self._episode = self._episode, Episode()
        self._scalar("train/episode_reward", episode.reward, step)
        self._scalar("train/episode_length", episode.steps, step)
        self._scalar("train/episode_route", episode.route, step)
        self._scalar("train/arrived", episode.end == "finished", step)
        self._scalar("train/collided", episode.end == "collided", step)
        if self._options.debug:
            self.say(
                f"step {step}: episode of {episode.steps} steps, reward {episode.reward:.1f}, route "
                f"{episode.route:.0%}, ended by {episode.end.replace('_', ' ')}"
            )

    def _scalar(self, tag: str, value: float, step: int) -> None:
        self._writer.add_scalar(tag, value, step)
