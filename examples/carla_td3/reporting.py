"""What a run tells while it trains: scalars for TensorBoard, a progress bar, checkpoints and evaluations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch.utils.tensorboard.writer import SummaryWriter

from examples.carla_td3.agent import Update
from examples.carla_td3.checklist import Checklist
from examples.carla_td3.loop import Episode

__all__ = ["Report", "progress_bar"]


def progress_bar(console: Console) -> Progress:
    """A bar with the steps done and the time left; on no terminal it shows nothing."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("steps"))
    return Progress(
        *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, disable=not console.is_terminal
    )


class Report:
    """Listens to the training loop.

    Args:
        writer: of the scalars; gradwatch's TensorBoard sink writes its own with the same writer.
        checklist: is told the actor's losses, which gradwatch does not see.
        advance: called once a step with its number; draws the bar, saves, evaluates.
        console: where episodes are printed.
        debug: whether to print each episode and write the terms of the reward.
    """

    # A line every so many steps where there is no bar to look at.
    PLAIN_EVERY = 100

    def __init__(
        self,
        writer: SummaryWriter,
        checklist: Checklist,
        advance: Callable[[int], None],
        console: Console,
        debug: bool,
    ) -> None:
        self._writer = writer
        self._checklist = checklist
        self._advance = advance
        self._console = console
        self._debug = debug

    def stepped(self, step: int, info: dict[str, Any]) -> None:
        if self._debug:
            for name, value in info["reward_terms"].items():
                self._scalar(f"reward/{name}", value, step)
        if not self._console.is_terminal and step % self.PLAIN_EVERY == 0:
            self.say(f"step {step}")
        self._advance(step)

    def updated(self, step: int, update: Update) -> None:
        self._scalar("train/critic_loss", update.critic_loss, step)
        if update.actor_loss is not None:
            self._scalar("train/actor_loss", update.actor_loss, step)
            self._checklist.take_actor_loss(update.actor_loss)
        for module, value in update.wrong_norms.items():
            self._scalar(f"debug/{module}_grad_norm_AFTER_clip_SUM_OF_NORMS", value, step)

    def episode_ended(self, step: int, episode: Episode) -> None:
        self._scalar("train/episode_reward", episode.reward, step)
        self._scalar("train/episode_length", episode.steps, step)
        if self._debug:
            self.say(
                f"step {step}: episode of {episode.steps} steps, "
                f"reward {episode.reward:.1f}, ended by {episode.end}"
            )

    def evaluated(self, step: int, episodes: list[Episode]) -> None:
        mean = sum(episode.reward for episode in episodes) / len(episodes)
        self._scalar("eval/episode_reward", mean, step)
        self.say(f"step {step}: evaluation of {len(episodes)} episodes, mean reward {mean:.1f}")

    def say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _scalar(self, tag: str, value: float, step: int) -> None:
        self._writer.add_scalar(tag, value, step)
