"""A film of an episode of training: ``python -m examples.carla_td3.record runs/TD3_... out.gif``.

What the camera saw at each decision stands beside the gradients of that moment. Nothing is driven anew: the replay
buffer holds the pictures and ``gradwatch.jsonl`` the norms, also of a run that was killed after a checkpoint.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

import gradwatch
from examples.carla_td3.checkpoint import Checkpoints
from examples.carla_td3.env.driving import SPEED_UNIT
from examples.carla_td3.history import History
from examples.carla_td3.options import OptionError, Options, parse
from examples.carla_td3.panel import INKS, WORDS, Panel
from examples.carla_td3.replay import SPLIT, Replay

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["check_film", "record"]

# A film's sides are multiples of 16, as its encoder asks for.
WIDTH, HEIGHT, CAMERA = 832, 352, 320
TICKS_A_SECOND = 20
# What each kind of film needs: the module, and the package that brings it.
DRAWN = (("PIL", "pillow"), ("pandas", "pandas"))
NEEDED = {".gif": DRAWN, ".mp4": (*DRAWN, ("imageio_ffmpeg", "imageio-ffmpeg"))}


def check_film(path: Path) -> None:
    """Whether a film can be made there, before anything is trained for it.

    Raises:
        OptionError: it cannot.
    """
    if path.suffix not in NEEDED:
        raise OptionError(f"The film is to be {str(path)!r}, but films are .gif or .mp4: choose one of these.")
    missing = " ".join(package for module, package in NEEDED[path.suffix] if _missing(module))
    if missing:
        raise OptionError(f"A film in {path.suffix} needs what is not installed here: pip install {missing}.")
    if not path.parent.is_dir():
        raise OptionError(f"The film is to be {str(path)!r}, but there is no such folder: make it first.")


def record(folder: Path, path: Path, episode: int | None = None) -> str:
    """Film an episode of a run.

    Args:
        folder: of the run.
        path: of the film, a .gif or a .mp4.
        episode: its number, from 1; None: the last one that ended.

    Returns:
        what was filmed, in words.

    Raises:
        OptionError: the film cannot be made, or there is no such episode.
        MissingExtraError: pandas is not installed.
    """
    check_film(path)
    options = parse(["--resume", str(folder), "--prometheus-port", "0", "--device", "cpu"])
    replay, newest = _buffer(folder, options)
    first, last = _chosen(_episodes(replay, newest), episode)
    frames = _frames(replay, options, History(folder), first, last)
    rate = TICKS_A_SECOND / options.action_repeat
    if path.suffix == ".gif":
        _write_gif(frames, path, rate)
    else:
        _write_mp4(frames, path, rate)
    return f"decisions {first} to {last}, {(last - first + 2) / rate:.1f} s, are in {path}"


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 2 where it cannot be meant."""
    parser = argparse.ArgumentParser(prog="python -m examples.carla_td3.record", description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("film", type=Path, help="a .gif or a .mp4")
    parser.add_argument("--episode", type=int, help="its number, from 1 (default: the last one that ended)")
    given = parser.parse_args(arguments)
    try:
        print(record(given.run, given.film, given.episode))
    except (OptionError, gradwatch.errors.MissingExtraError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _missing(module: str) -> bool:
    return importlib.util.find_spec(module) is None


def _buffer(folder: Path, options: Options) -> tuple[Replay, int]:
    """The pictures of a run, and the number of the newest decision that its checkpoint knows of."""
    checkpoints = Checkpoints(folder)
    if not checkpoints.step:
        raise OptionError(f"{str(folder)!r} has no checkpoint yet, so nothing of it can be filmed: wait for one.")
    replay = Replay(options.buffer_size, folder, spare=options.checkpoint_freq)
    state = torch.load(folder / f"checkpoint-{checkpoints.step}.pt", weights_only=True, map_location="cpu")
    replay.load_state_dict(state["parts"]["replay"])
    return replay, checkpoints.step


def _episodes(replay: Replay, newest: int) -> list[tuple[int, int]]:
    """First and last decision of each that the buffer holds from its beginning; the last may not have ended."""
    oldest = newest - len(replay) + 1
    begins = [1] if oldest == 1 else []
    begins += [number for number in range(oldest + 1, newest + 1) if _is_new(replay, number)]
    ends = [*(begin - 1 for begin in begins[1:]), newest]
    return list(zip(begins, ends, strict=False))


def _is_new(replay: Replay, decision: int) -> bool:
    """Whether an episode begins with it: its pictures do not go on from those of the one before."""
    before, now = (replay.transition(number)[0] for number in (decision - 1, decision))
    return not np.array_equal(before[1:], now[:-1])


def _chosen(episodes: list[tuple[int, int]], number: int | None) -> tuple[int, int]:
    if not 1 <= (number or 1) <= len(episodes):
        raise OptionError(
            f"--episode got {number or 'none'}, but the buffer holds {len(episodes)} episodes from their "
            "beginning: choose one of these."
        )
    # The last one is still going on, unless it ended with the run.
    return episodes[number - 1] if number else episodes[-2:][0]


def _frames(replay: Replay, options: Options, history: History, first: int, last: int) -> Iterator[Image]:
    """One for each decision, and one of what the last has led to."""
    from PIL import Image, ImageDraw

    # As much of what came before is shown as the episode is long.
    left = max(options.learning_starts, 2 * first - last - 1)
    panel = Panel(history, left, last, (CAMERA + 24, 8, WIDTH - 4, HEIGHT - 4))
    # Of the five pictures of a transition the last shows what came of it.
    for decision, seen in [*((number, -2) for number in range(first, last + 1)), (last, -1)]:
        pictures, numbers = replay.transition(decision)
        image = Image.new("RGB", (WIDTH, HEIGHT), "white")
        camera = Image.fromarray(pictures[seen]).resize((CAMERA, CAMERA), Image.Resampling.NEAREST)
        image.paste(camera.convert("RGB"), (8, 8))
        draw = ImageDraw.Draw(image)
        draw.text((8, CAMERA + 12), _words(decision, numbers), fill=WORDS, font_size=12)
        panel.draw(draw, decision)
        yield image


def _words(decision: int, numbers: npt.NDArray[np.float32]) -> str:
    vector, _, action, _, _ = np.split(numbers, np.cumsum(SPLIT)[:-1])
    pedal = "throttle" if action[1] >= 0 else "brake"
    return (
        f"decision {decision}    {SPEED_UNIT * vector[0]:.1f} m/s    steering {action[0]:+.2f}    "
        f"{pedal} {abs(action[1]):.2f}"
    )


def _write_gif(frames: Iterator[Image], path: Path, rate: float) -> None:
    from PIL import Image, ImageColor

    # One palette for all: what does not change from frame to frame is then written once.
    palette = Image.new("P", (1, 1))
    inks = [ImageColor.getrgb(ink) for ink in INKS]
    palette.putpalette(
        [part for colour in (*inks, *((gray,) * 3 for gray in range(0, 256, 4))) for part in colour]
    )
    first, *others = (frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames)
    first.save(path, save_all=True, append_images=others, duration=round(1000 / rate), loop=0)


def _write_mp4(frames: Iterator[Image], path: Path, rate: float) -> None:
    import imageio_ffmpeg

    film = imageio_ffmpeg.write_frames(str(path), (WIDTH, HEIGHT), fps=rate)
    film.send(None)
    for frame in frames:
        film.send(frame.tobytes())
    film.close()


if __name__ == "__main__":
    sys.exit(main())
