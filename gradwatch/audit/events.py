"""The scalars in TensorBoard's event files, of whatever program."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gradwatch.audit.curves import Curve
from gradwatch.errors import ArgumentError, MissingExtraError

__all__ = ["Run", "runs"]


@dataclass
class Run:
    """The event files of one folder.

    Attributes:
        folder: below the path that was asked for; ``"."`` is that itself.
        curves: the scalars by tag.
        torn: names of the files that could not be read to their end.
        own: whether gradwatch wrote them all.
    """

    folder: str
    curves: dict[str, Curve]
    torn: list[str]
    own: bool


def runs(path: Path) -> list[Run]:
    """What a folder and those below it hold, or one event file.

    Raises:
        ArgumentError: no event file is there, or one cannot be read.
        MissingExtraError: tensorboard is not installed.
    """
    # It tells of its missing TensorFlow.
    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    try:
        from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
        from tensorboard.util import tensor_util
    except ImportError as error:
        raise MissingExtraError("Reading a TensorBoard log", "tensorboard", "tensorboard") from error
    files = [path] if path.is_file() else sorted(_below(path))
    if not files:
        raise ArgumentError(f"The folder {str(path)!r} holds no event file of TensorBoard: give one that does.")
    folders: dict[Path, _Folder] = {}
    for file in files:
        if file.is_file():
            folder = folders.setdefault(file.parent, _Folder(tensor_util.make_ndarray))
            folder.take(file, LegacyEventFileLoader)
    top = path.parent if path.is_file() else path
    return [folder.run(str(where.relative_to(top))) for where, folder in folders.items()]


def _below(path: Path) -> Iterator[Path]:
    # A folder that goes away, or that nobody may read, is passed over.
    return (Path(folder, name) for folder, _, names in os.walk(path) for name in names if "tfevents" in name)


@dataclass
class _Folder:
    """What has been read of one folder."""

    array_of: Any
    points: dict[str, tuple[list[int], list[float]]] = field(default_factory=dict)
    files: dict[str, list[int]] = field(default_factory=dict)
    torn: list[str] = field(default_factory=list)
    writers: set[str] = field(default_factory=set)

    def take(self, file: Path, loader: Any) -> None:
        """One more file, up to where it is torn."""
        try:
            whole, framed = _framed(file)
        except OSError as error:
            raise ArgumentError(
                f"The file {str(file)!r} cannot be read ({error.strerror}): give one that can be."
            ) from error
        self._files_begin()
        read = 0
        try:
            for event in loader(str(file)).Load():
                read += 1
                self._event(event)
        except Exception:  # what is no event is not described by one error
            whole = False
        if not whole or read < framed:
            self.torn.append(file.name)

    def run(self, folder: str) -> Run:
        """All of it."""
        curves = {
            tag: Curve(
                tag,
                np.array(steps, dtype=np.int64),
                np.array(values, dtype=np.float64),
                tuple(at for at in self.files.get(tag, ()) if 0 < at < len(steps)),
            )
            for tag, (steps, values) in self.points.items()
        }
        return Run(folder, curves, self.torn, own=self.writers == {"gradwatch"})

    def _files_begin(self) -> None:
        for tag, (steps, _) in self.points.items():
            self.files.setdefault(tag, []).append(len(steps))

    def _event(self, event: Any) -> None:
        kind = event.WhichOneof("what")
        if kind == "file_version":
            self.writers.add(str(event.source_metadata.writer))
        elif kind == "summary":
            for value in event.summary.value:
                number = self._number(value)
                if number is not None:
                    steps, values = self.points.setdefault(str(value.tag), ([], []))
                    steps.append(int(event.step))
                    values.append(number)

    def _number(self, value: Any) -> float | None:
        """The value of a scalar, of either form; None of anything else."""
        kind = value.WhichOneof("value")
        if kind == "simple_value":
            return float(value.simple_value)
        if kind != "tensor" or math.prod(side.size for side in value.tensor.tensor_shape.dim) != 1:
            return None
        array = self.array_of(value.tensor)
        return float(array.reshape(())) if array.dtype.kind in "fiu" else None


def _framed(file: Path) -> tuple[bool, int]:
    """Whether a file ends where a record does, and how many there are: the reader is silent about what it leaves.

    A record of a TFRecord is its length in 8 bytes, a checksum in 4, the event, and another checksum in 4.
    """
    size, count, at = file.stat().st_size, 0, 0
    with file.open("rb") as records:
        for length in _lengths(records, size):
            count += 1
            at += length
    return at == size and count > 0, count


def _lengths(records: Any, size: int) -> Iterator[int]:
    at = 0
    while len(head := records.read(8)) == 8:
        length = int.from_bytes(head, "little") + 16
        at += length
        if at > size:
            return
        records.seek(at)
        yield length
