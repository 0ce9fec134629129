"""The last state of a run for a Pushgateway: a short job may be over before anybody has scraped it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from gradwatch.errors import SinkError
from gradwatch.monitoring.metrics import PREFIX
from gradwatch.records import RunInfo
from gradwatch.sinks.losses import reason_of

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

__all__ = ["over", "push"]

# A gateway keeps what it was given for ever; what has happened is in the counters.
_OVER = tuple(PREFIX + name for name in ("training_active", "alert_active", "alert_info"))

_TIMEOUT_SECONDS = 5.0


def over(families: Iterable[Metric]) -> Iterator[Metric]:
    """The same metrics of a run that is over: nothing is active in it any more."""
    for family in families:
        if family.name in _OVER:
            family.samples = [sample._replace(value=0.0) for sample in family.samples]
        yield family


def push(gateway: str, registry: CollectorRegistry, run: RunInfo) -> None:
    """Replace what the gateway at this URL has of the run and its rank, under the job ``gradwatch``.

    Raises:
        SinkError: it does not take it.
    """
    from prometheus_client import push_to_gateway

    group = {"run": run.run, "rank": str(run.rank)}
    try:
        push_to_gateway(gateway, "gradwatch", registry, grouping_key=group, timeout=_TIMEOUT_SECONDS)
    except Exception as error:
        raise SinkError(
            f"The Pushgateway at {gateway} has not taken the last state of the run ({reason_of(error)}): look "
            "whether it runs there."
        ) from error
