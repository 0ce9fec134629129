"""The page on writing a sink runs as it is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "writing-a-sink.md"


def test_the_example_keeps_every_step(monkeypatch: Any) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    import sqlite3

    base = sqlite3.connect(":memory:", check_same_thread=False)

    class Kept:
        """The same base, which outlives the sink."""

        def __getattr__(self, name: str) -> Any:
            return getattr(base, name)

        def close(self) -> None:
            pass

    monkeypatch.setattr(sqlite3, "connect", lambda *_, **__: Kept())
    exec(compile(code, str(PAGE), "exec"), {"__name__": "page"})
    rows = base.execute("select run, step from norms").fetchall()
    assert rows == [("first try", step) for step in range(1, 21)]
    base.close()
