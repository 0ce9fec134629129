"""Scrapes once a second, in a process of its own, until its input ends; then says what it saw as one line of JSON."""

from __future__ import annotations

import json
import select
import sys
import urllib.request


def sums(page: str, name: str) -> float:
    """All series of a metric together."""
    lines = (line for line in page.splitlines() if line.startswith(name + "{"))
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def main(url: str) -> None:
    scrapes, failed, went_back, steps, alerts = 0, 0, 0, 0.0, 0.0
    while not select.select([sys.stdin], [], [], 1.0)[0]:
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                page = answer.read().decode()
        except OSError:
            failed += 1
            continue
        scrapes += 1
        before, steps, alerts = steps, sums(page, "gradwatch_steps_total"), sums(page, "gradwatch_alerts_total")
        went_back += steps < before
    seen = {"scrapes": scrapes, "failed": failed, "went_back": went_back, "steps": steps, "alerts": alerts}
    print(json.dumps(seen))


if __name__ == "__main__":
    main(sys.argv[1])
