"""Where records and alerts go: one file a sink. None knows torch; each imports its package when it is made."""

from gradwatch.sinks.memory import Memory

__all__ = ["Memory"]
