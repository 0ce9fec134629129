"""Writes what operators copy: ``make deploy``."""

from tests.monitoring.files import ROOT, generated

for path, text in generated().items():
    (ROOT / path).write_text(text)
