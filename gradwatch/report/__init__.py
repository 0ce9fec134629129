"""What happened in a run, told from its JSONL file: in words on one screen, or as a page for a browser."""

from gradwatch.report.page import page
from gradwatch.report.run import Run, newest_run
from gradwatch.report.words import told

__all__ = ["Run", "newest_run", "page", "told"]
