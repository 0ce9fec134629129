"""Where records and alerts go: one file a sink. None knows torch; each imports its package when it opens."""

from gradwatch.records import Sink
from gradwatch.sinks.console import Console
from gradwatch.sinks.jsonl import Jsonl
from gradwatch.sinks.memory import Memory
from gradwatch.sinks.mlflow import MLflow
from gradwatch.sinks.otlp import OpenTelemetry
from gradwatch.sinks.prometheus import Prometheus
from gradwatch.sinks.tensorboard import TensorBoard
from gradwatch.sinks.trackio import Trackio
from gradwatch.sinks.wandb import WandB
from gradwatch.sinks.webhook import Webhook

__all__ = [
    "Console",
    "Jsonl",
    "MLflow",
    "Memory",
    "OpenTelemetry",
    "Prometheus",
    "Sink",
    "TensorBoard",
    "Trackio",
    "WandB",
    "Webhook",
]
