"""From a training whose actor dies to the pager, as it happens: ``make demo-alerts``."""

import contextlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from tests.monitoring.live.processes import free_port, running, wait_for
from tests.monitoring.live.scale import MINUTE
from tests.monitoring.live.servers import Pager, servers
from tests.monitoring.live.training import command

PATIENCE = 120


class Told:
    """Prints what the pager gets, with the time since the training went wrong."""

    def __init__(self):
        self.since = time.monotonic()
        self.over = threading.Event()

    def say(self, words):
        print(f"{time.monotonic() - self.since:5.1f} s  {words}", flush=True)

    def take(self, notified):
        labels, said = notified.labels, notified.annotations
        self.say(f"{notified.receiver.upper()} {notified.status}: {said['summary']}")
        if notified.status == "firing":
            print(f"         labels: {', '.join(f'{key}={value}' for key, value in sorted(labels.items()))}")
            print(f"         {said['description']}\n         what to do: {said['runbook_url']}", flush=True)
        elif labels.get("rule") == "zero":
            self.over.set()


def _title(labels):
    return f"{labels['alertname']} {labels.get('rule', '')}".strip()


def main():
    told, port = Told(), free_port()
    print(f"A minute of the rules lasts {MINUTE:.0f} seconds here, so that you need not wait for five of them.")
    with (
        tempfile.TemporaryDirectory() as folder,
        Pager(told.take) as pager,
        running(command({"dies": port}), stdin=subprocess.PIPE) as training,
        servers(Path(folder), {"train": port}, pager) as started,
    ):
        print(f"Prometheus: {started.prometheus}/classic/alerts  Alertmanager: {started.alertmanager}")
        print(f"The run shows its metrics at http://127.0.0.1:{port}/metrics")
        wait_for(lambda: started.query("gradwatch_steps_total > 50"), PATIENCE, "the training to be scraped")
        told.since = time.monotonic()
        training.stdin.write(b"now\n")
        training.stdin.flush()
        told.say("the tanh of the actor is saturated from this step on")
        muted = set()
        while not told.over.wait(0.5) and time.monotonic() - told.since < PATIENCE:
            muted |= {_title(labels) for labels, is_muted in started.alerts() if is_muted}
        told.say(f"It is over. Muted beside it: {', '.join(sorted(muted)) or 'nothing'}.")


if __name__ == "__main__":
    # The way out is the same for whoever stops it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with contextlib.suppress(KeyboardInterrupt):
        main()
