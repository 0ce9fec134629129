"""Where records and alerts go: one file a sink. None knows torch; each imports its package when it opens."""

from gradwatch.sinks.console import Console
from gradwatch.sinks.jsonl import Jsonl
from gradwatch.sinks.memory import Memory
from gradwatch.sinks.otlp import OpenTelemetry
from gradwatch.sinks.prometheus import Prometheus
from gradwatch.sinks.tensorboard import TensorBoard

__all__ = ["Console", "Jsonl", "Memory", "OpenTelemetry", "Prometheus", "TensorBoard"]
