"""A file that tells a Prometheus server where to scrape: of the kind that its ``file_sd_configs`` reads."""

from __future__ import annotations

import json
import platform
import re
from pathlib import Path

__all__ = ["Announcement", "as_target"]

# Of an address that means all of this machine's.
_EVERYWHERE = ("", "0.0.0.0", "::")


def as_target(addr: str, port: int) -> str:
    """Host and port as a URL has them; the name of this machine where it listens on all its addresses."""
    host = platform.node() if addr in _EVERYWHERE else addr
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Announcement:
    """One target in a file of its own, there from ``make`` to ``withdraw``.

    What a killed process leaves behind names a target that is down, as it is; the next one at the same port
    writes it anew.

    Args:
        folder: of the files, as in ``files: [folder/*.json]``; made where it is missing.
        target: host and port.
        scheme: ``"http"`` or ``"https"``.
    """

    def __init__(self, folder: Path, target: str, scheme: str) -> None:
        self._path = folder / f"gradwatch-{re.sub('[^A-Za-z0-9.-]', '_', target)}.json"
        # The run and its rank are labels of every series; given here too they would get in each other's way.
        labels = {} if scheme == "http" else {"__scheme__": scheme}
        self._text = json.dumps([{"targets": [target], "labels": labels}])

    def make(self) -> None:
        """Write the file, whole at any time.

        Raises:
            OSError: it cannot be written.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        beginning = self._path.with_suffix(".beginning")
        beginning.write_text(self._text, encoding="utf-8")
        beginning.replace(self._path)

    def withdraw(self) -> None:
        """Delete the file.

        Raises:
            OSError: it cannot be deleted.
        """
        self._path.unlink(missing_ok=True)
