"""An event file of TensorBoard, without torch, and without tensorboard's own writer.

That writer appends one event at a time, from a thread of its own, with a checksum computed byte by byte in Python:
120 us a step. Here the events of a block, alike but for their numbers, are one array of bytes.
"""

from __future__ import annotations

import itertools
import os
import socket
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from gradwatch.blocks import FloatArray
from gradwatch.errors import MissingExtraError, SinkError
from gradwatch.sinks.checksums import added, flipped, masked, masked_crc32c, weights
from gradwatch.sinks.line_file import Unbuffered

__all__ = ["EventFile"]

# Tells apart the files that one process begins in one second.
_numbers = itertools.count()


class EventFile:
    """Events are gathered, and written by ``write``.

    Args:
        folder: begun in it, each with a name of its own; made where it is missing. A URL of a store too.

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
        self._gfile: Any = tf.io.gfile
        self._folder = folder
        self._is_in_a_store = "://" in folder
        self._forms: dict[tuple[str, ...], _Form] = {}
        self._waiting: list[bytes] = []
        self._flush_at = 0.0
        about = event_pb2.SourceMetadata(writer="gradwatch")
        first = self._event(wall_time=time.time(), file_version="brain.Event:2", source_metadata=about)
        self._head = _framed(first.SerializeToString())
        self._path = ""
        self._file: Any = None
        try:
            self.write(anew=True)
        except OSError as error:
            raise SinkError(
                f"The TensorBoard folder {folder!r} cannot be written ({error.strerror}): give a folder that is "
                "yours."
            ) from error

    @property
    def is_whole(self) -> bool:
        """Whether what comes next is appended; a new file is begun where the last one was deleted or is torn."""
        return self._file is not None and (self._is_in_a_store or os.path.exists(self._path))  # noqa: PTH110 quicker

    def expect(self, tags: tuple[str, ...]) -> None:
        """Work out what events with these tags have in common; done before the first one where it was not."""
        if tags not in self._forms:
            self._forms[tags] = _Form(tags)

    def add_scalars(
        self, tags: tuple[str, ...], values: FloatArray, steps: Sequence[int], wall_times: Sequence[float]
    ) -> None:
        """All scalars of a step in one event: one record on disk in place of one for each curve.

        Args:
            tags: the names of the curves.
            values: ``[steps, tags]``.
            steps: of the optimizer.
            wall_times: Unix time of each in seconds.
        """
        self.expect(tags)
        self._waiting.append(self._forms[tags].filled(values, steps, wall_times))

    def add_text(self, tag: str, text: str, step: int, wall_time: float) -> None:
        """A text for the text tab."""
        summary = self._text_pb(_utf8(tag).decode(), _utf8(text).decode())
        self._add(self._event(wall_time=wall_time, step=step, summary=summary))

    def write(self, anew: bool) -> None:
        """Write what was added since the last time.

        Args:
            anew: to a new file, as what was written is not whole.

        Raises:
            OSError: it cannot be written, and is lost; the next file is a new one.
        """
        waiting, self._waiting = self._waiting, []
        if anew:
            self._begin(waiting)
        elif waiting:
            self._append(waiting)
        if time.monotonic() >= self._flush_at:
            self._flush_at = time.monotonic() + self.FLUSH_SECONDS
            self._file.flush()

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _begin(self, waiting: Sequence[bytes]) -> None:
        self._gfile.makedirs(self._folder)
        # A file of which not even the head could be written is written over.
        if self._file is not None or not self._path:
            self._path = os.path.join(self._folder, _file_name())  # noqa: PTH118 a URL too
        self.close()
        # tensorboard's opens a file of the disk anew for each write.
        self._file = self._gfile.GFile(self._path, "wb") if self._is_in_a_store else Unbuffered(self._path, "w")
        self._put((self._head, *waiting))

    def _append(self, waiting: Sequence[bytes]) -> None:
        try:
            self._put(waiting)
        except BaseException:
            # What is behind a record that is torn is not read.
            self._path = ""
            raise

    def _put(self, events: Sequence[bytes]) -> None:
        write = self._file.write if self._is_in_a_store else self._file.write_all
        try:
            write(b"".join(events))
        except BaseException:
            with suppress(Exception):
                self.close()
            raise

    def _add(self, event: Any) -> None:
        self._waiting.append(_framed(event.SerializeToString()))


class _Form:
    """Events with the same tags, as bytes in which only the numbers are to be filled in.

    By the schema of ``tensorboard/compat/proto/event.proto`` and ``summary.proto``, as protobuf encodes it: the
    number of each field and the kind of its value, the length where that may differ, the value.
    """

    # A varint may be longer than it has to be: so many bytes hold any step.
    STEP_BYTES = 9

    def __init__(self, tags: Sequence[str]) -> None:
        event = bytearray(b"\x09" + bytes(8) + b"\x10" + bytes(self.STEP_BYTES))
        numbers = [*range(1, 9), *range(10, len(event))]
        values = [b"\x0a" + _sized(_utf8(tag)) + b"\x15" + bytes(4) for tag in tags]
        event += b"\x2a" + _varint(sum(1 + len(_sized(value)) for value in values))
        for value in values:
            event += b"\x0a" + _sized(value)
            numbers += range(len(event) - 4, len(event))
        header = _header(len(event))
        self._frame = np.frombuffer(header + event + bytes(4), dtype=np.uint8)
        self._numbers = np.array(numbers) + len(header)
        of_bits = weights(len(event))
        self._weights = of_bits.reshape(-1, 8)[numbers].ravel()
        self._added = added(flipped(bytes(event))[:, None], of_bits)

    def filled(self, values: FloatArray, steps: Sequence[int], wall_times: Sequence[float]) -> bytes:
        """An event for each step."""
        times = np.array(wall_times, dtype="<f8")[:, None].view(np.uint8)
        groups = np.array(steps, dtype=np.int64)[:, None] >> np.arange(0, 7 * self.STEP_BYTES, 7)
        # Seven bits each; the highest bit says that more follow.
        varints = (groups & 0x7F | 0x80).astype(np.uint8)
        varints[:, -1] &= 0x7F
        with np.errstate(all="ignore"):
            # What float32 cannot hold is infinite there.
            scalars = values.astype("<f4").view(np.uint8)
        numbers = np.concatenate((times, varints, scalars), axis=1)
        frames = self._frame[None].repeat(len(numbers), axis=0)
        frames[:, self._numbers] = numbers
        frames[:, -4:] = masked(self._added ^ added(numbers.T, self._weights))[:, None].view(np.uint8)
        return frames.tobytes()


def _file_name() -> str:
    # TensorBoard knows its files by what stands before the time, and reads them in the order of their names: those
    # of one second, too.
    where = f"{socket.gethostname()}.{os.getpid()}.{next(_numbers):06d}"
    return f"events.out.tfevents.{int(time.time()):010d}.{where}.gradwatch"


def _framed(message: bytes) -> bytes:
    return _header(len(message)) + message + masked_crc32c(message)


def _header(length: int) -> bytes:
    """What comes before a message in a TFRecord: its length, with a checksum of its own."""
    packed = struct.pack("<Q", length)
    return packed + masked_crc32c(packed)


def _sized(value: bytes) -> bytes:
    return _varint(len(value)) + value


def _varint(number: int) -> bytes:
    rest = number >> 7
    return bytes([number & 0x7F | 0x80]) + _varint(rest) if rest else bytes([number])


def _utf8(text: str) -> bytes:
    # Half of a surrogate pair is no character that UTF-8 has.
    return text.encode("utf-8", "backslashreplace")
