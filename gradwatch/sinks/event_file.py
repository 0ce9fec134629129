"""An event file of TensorBoard, without torch, and without tensorboard's own writer.

That writer appends one event at a time, from a thread of its own, with a checksum computed byte by byte in Python:
120 us a step. Here a batch of events is one write.
"""

from __future__ import annotations

import itertools
import os
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from gradwatch.errors import MissingExtraError, SinkError
from gradwatch.sinks.checksums import masked_crc32c

__all__ = ["EventFile"]

# Tells apart the files that one process begins in one second.
_numbers = itertools.count()


class EventFile:
    """Events are gathered, and written by ``write``.

    Raises:
        MissingExtraError: tensorboard is not installed.
        SinkError: the folder cannot be written.
    """

    # On a store that cannot append, each flush sends the whole file; a curve may lag behind by so many seconds.
    FLUSH_SECONDS = 5

    def __init__(self, folder: str) -> None:
        try:
            from tensorboard.compat import tf
            from tensorboard.compat.proto import event_pb2
            from tensorboard.plugins.text.summary_v2 import text_pb
        except ImportError as error:
            raise MissingExtraError("The TensorBoard sink", "tensorboard", "tensorboard") from error
        self._event: Any = event_pb2.Event
        self._text_pb: Any = text_pb
        self._forms: dict[tuple[str, ...], tuple[Any, list[Any]]] = {}
        self._waiting: list[bytes] = []
        self._flush_at = 0.0
        about = event_pb2.SourceMetadata(writer="gradwatch")
        first = self._event(wall_time=time.time(), file_version="brain.Event:2", source_metadata=about)
        try:
            tf.io.gfile.makedirs(folder)
            self._file: Any = tf.io.gfile.GFile(os.path.join(folder, _file_name()), "wb")  # noqa: PTH118 a URL too
            self._add(first)
            self.write()
        except OSError as error:
            raise SinkError(
                f"The TensorBoard folder {folder!r} cannot be written ({error.strerror}): give a folder that is "
                "yours."
            ) from error

    def add_scalars(self, scalars: Mapping[str, float], step: int, wall_time: float) -> None:
        """All scalars of a step in one event: one record on disk in place of one for each curve."""
        event, values = self._form(tuple(scalars))
        event.step, event.wall_time = step, wall_time
        for value, scalar in zip(values, scalars.values(), strict=True):
            value.simple_value = scalar
        self._add(event)

    def add_text(self, tag: str, text: str, step: int, wall_time: float) -> None:
        """A text for the text tab."""
        self._add(self._event(wall_time=wall_time, step=step, summary=self._text_pb(tag, text)))

    def write(self) -> None:
        """Write what was added since the last time."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._file.write(_framed(waiting))
        if time.monotonic() >= self._flush_at:
            self._file.flush()
            self._flush_at = time.monotonic() + self.FLUSH_SECONDS

    def close(self) -> None:
        """Write what is left, and close."""
        try:
            self.write()
        finally:
            self._file.close()

    def _add(self, event: Any) -> None:
        self._waiting.append(event.SerializeToString())

    def _form(self, tags: tuple[str, ...]) -> tuple[Any, list[Any]]:
        """An event with these tags, and its values, to be filled in anew for each step."""
        known = self._forms.get(tags)
        if known is None:
            event = self._event()
            known = self._forms[tags] = event, [event.summary.value.add(tag=tag) for tag in tags]
        return known


def _file_name() -> str:
    # TensorBoard knows its files by what stands before the time.
    where = f"{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"
    return f"events.out.tfevents.{int(time.time()):010d}.{where}.gradwatch"


def _framed(messages: Sequence[bytes]) -> bytes:
    """TFRecords: the length (8 bytes) with its checksum, the message with its own."""
    sums = masked_crc32c(messages).tolist()
    return b"".join(
        _header(len(message)) + message + struct.pack("<I", crc)
        for message, crc in zip(messages, sums, strict=True)
    )


@lru_cache(maxsize=256)
def _header(length: int) -> bytes:
    packed = struct.pack("<Q", length)
    return packed + struct.pack("<I", *masked_crc32c([packed]).tolist())
