"""The ``gradwatch`` logger, as gradwatch speaks to it: a handler of the user's that raises disturbs nobody."""

from __future__ import annotations

import logging
from typing import Any

__all__ = ["log"]


class _Harmless(logging.LoggerAdapter[logging.Logger]):
    """Passes on what is said, and keeps what handlers and filters raise; logging itself keeps most of it.

    Attributes:
        errors: how often that was.
    """

    errors = 0

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Say something, as ``Logger.log`` does."""
        try:
            self.logger.log(level, msg, *args, stacklevel=2, **kwargs)
        except Exception:
            self.errors += 1


log = _Harmless(logging.getLogger("gradwatch"))
