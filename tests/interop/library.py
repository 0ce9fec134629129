"""The libraries that the tests run: installed with the extra ``interop``, and skipped where they are not there."""

from __future__ import annotations

from typing import Any

import pytest


def library(name: str) -> Any:
    """The library; the rest of the module that asks for it is skipped without it."""
    return pytest.importorskip(name, reason='another library is missing: pip install "gradwatch[interop]"')
