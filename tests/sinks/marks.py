"""To wait for one sink alone."""

import threading

from gradwatch.sinks.outlet import Outlet

__all__ = ["all_written"]


def all_written(outlet: Outlet) -> bool:
    """Wait until all that was put before is written; False where it takes too long."""
    written = threading.Event()
    outlet.mark(written.set)
    return written.wait(10)
