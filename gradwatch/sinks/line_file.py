"""A file that whole lines are appended to, wherever its folder has gone meanwhile."""

from __future__ import annotations

import os
from io import FileIO
from pathlib import Path

__all__ = ["LineFile", "Unbuffered"]


class Unbuffered(FileIO):
    """A file that is given to the system at once, so that it is there when the process is killed."""

    def write_all(self, data: bytes) -> None:
        """Write all of it, by one call of the system as a rule.

        Raises:
            OSError: it cannot be written, or a part of it alone.
        """
        left = memoryview(data)
        while left:
            left = left[self.write(left) :]


class LineFile:
    """What was appended is there when the process is killed.

    Args:
        path: the file; its folder is made where it is missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._name = str(path)
        self._file: Unbuffered | None = None
        self._held: os.stat_result | None = None
        self._size = 0

    def open(self) -> None:
        """Open it, to go on behind what it holds; half a line of a run that was killed keeps to itself.

        Raises:
            OSError: it cannot be written.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        torn = _ends_within_a_line(self._path)
        self._file = Unbuffered(self._path, "a", opener=_opened)
        self._held = os.fstat(self._file.fileno())
        self._size = self._held.st_size
        self.append("\n" if torn else "")

    @property
    def is_open(self) -> bool:
        """Whether it can be appended to."""
        return self._file is not None

    def append(self, text: str) -> None:
        """Append whole lines; where only a part could be written, the file is closed.

        Nothing else is asked of the system before: each of its calls lets go of the interpreter, and until this
        thread has it again the lines would be lost with the process.

        Raises:
            OSError: they cannot be written.
        """
        if self._file is None:
            return
        data = text.encode()
        self._size += len(data)
        try:
            self._file.write_all(data)
        except BaseException:
            self.close()
            raise

    def is_in_place(self) -> bool:
        """Whether it is what its path leads to: it may have been deleted, or moved."""
        if self._file is None or self._held is None:
            return False
        try:
            there = os.stat(self._name)  # noqa: PTH116 asked for after each block: without the detours of Path
        except OSError:
            return False
        self._size = there.st_size
        # While it is open no other file has its number.
        return os.path.samestat(there, self._held)

    def is_deleted(self) -> bool:
        """Whether no path leads to it any more, so that what it holds is lost."""
        return self._file is not None and os.fstat(self._file.fileno()).st_nlink == 0

    @property
    def size(self) -> int:
        """In bytes, as far as is known since it was last asked whether it is in place; 0 where it is closed."""
        return 0 if self._file is None else self._size

    def move_aside(self, keep: int) -> None:
        """Close it and call it ``{path}.1``, the one before ``{path}.2``, and so on; the oldest of ``keep`` goes.

        Raises:
            OSError: it cannot be renamed.
        """
        self.close()
        older = [self._path, *(Path(f"{self._path}.{number}") for number in range(1, keep + 1))]
        for now, then in zip(older[-2::-1], older[:0:-1], strict=True):
            if now.exists():
                now.replace(then)

    def close(self) -> None:
        """Close it; a second time does nothing."""
        file, self._file = self._file, None
        if file is not None:
            file.close()


def _opened(path: str, flags: int) -> int:
    """A pipe that nobody reads is an error; to open it as usual would wait for a reader for ever."""
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)
    if hasattr(os, "O_NONBLOCK"):
        os.set_blocking(descriptor, True)
    return descriptor


def _ends_within_a_line(path: Path) -> bool:
    if not path.is_file() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
