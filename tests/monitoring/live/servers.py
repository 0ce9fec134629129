"""A Prometheus and an Alertmanager of this machine's own, with the files that operators copy, and a pager."""

from __future__ import annotations

import json
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from gradwatch.monitoring.rules import DOCS
from tests.monitoring.files import ROOT
from tests.monitoring.live.processes import HOST, free_port, running, wait_for
from tests.monitoring.live.scale import scaled
from tests.monitoring.programs import FOLDER, program


class Notified(NamedTuple):
    """One alert as the pager got it."""

    status: str
    labels: dict[str, str]
    annotations: dict[str, str]
    receiver: str


class Pager:
    """What Alertmanager calls: keeps each alert that it is told of, and hands it on.

    Args:
        on_alert: called with each.
    """

    def __init__(self, on_alert=lambda notified: None):
        self.got = []
        pager = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                for alert in told["alerts"]:
                    one = Notified(alert["status"], alert["labels"], alert["annotations"], told["receiver"])
                    pager.got.append(one)
                    on_alert(one)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer((HOST, 0), Handler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Servers(NamedTuple):
    """Addresses of what runs."""

    prometheus: str
    alertmanager: str

    def query(self, expression):
        """The series of an expression now: pairs of labels and value."""
        found = self._asked("query", query=expression)
        return [(series["metric"], float(series["value"][1])) for series in found]

    def query_range(self, expression, since):
        """The series of an expression, second by second since a Unix time."""
        return self._asked("query_range", query=expression, start=since, end=time.time(), step=1)

    def alerts(self):
        """What Alertmanager holds: pairs of labels and whether another alert mutes it."""
        found = _read(f"{self.alertmanager}/api/v2/alerts")
        return [(alert["labels"], bool(alert["status"]["inhibitedBy"])) for alert in found]

    def _asked(self, what, **parameters):
        answer = _read(f"{self.prometheus}/api/v1/{what}?{urllib.parse.urlencode(parameters)}")
        return answer["data"]["result"]


@contextmanager
def pushgateway():
    """A Pushgateway; gives its port."""
    port = free_port()
    command = [program("prometheus-pushgateway"), f"--web.listen-address={HOST}:{port}"]
    with running(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        wait_for(lambda: _is_ready(f"http://{HOST}:{port}"), 20, "the Pushgateway to be ready")
        yield port


@contextmanager
def servers(folder, targets, pager):
    """Prometheus scrapes the targets, a job each by name -> port, and Alertmanager tells the pager."""
    prometheus, alertmanager = free_port(), free_port()
    rules = scaled((ROOT / "deploy/prometheus-rules.yml").read_text())
    (folder / "rules.yml").write_text(rules.replace(f"'{DOCS}/", f"'{(ROOT / DOCS).as_uri()}/"))
    example = scaled((ROOT / "deploy/alertmanager.yml").read_text())
    (folder / "alertmanager.yml").write_text(example.replace("127.0.0.1:19110", f"{HOST}:{pager.port}"))
    (folder / "prometheus.yml").write_text(json.dumps(_configuration(targets, alertmanager)))
    with (
        (folder / "log").open("w") as log,
        running(_alertmanager(folder, alertmanager), FOLDER if FOLDER.is_dir() else ROOT, stdout=log, stderr=log),
        running(_prometheus(folder, prometheus), stdout=log, stderr=log),
    ):
        started = Servers(f"http://{HOST}:{prometheus}", f"http://{HOST}:{alertmanager}")
        for address in started:
            wait_for(lambda address=address: _is_ready(address), 20, f"{address} to be ready")
        yield started


def _configuration(targets, alertmanager):
    return {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"{HOST}:{alertmanager}"]}]}]},
        "scrape_configs": [
            # Of what a Pushgateway shows, the labels are those of the run that has pushed it.
            {
                "job_name": name,
                "honor_labels": name == "pushgateway",
                "static_configs": [{"targets": [f"{HOST}:{port}"]}],
            }
            for name, port in targets.items()
        ],
    }


def _prometheus(folder, port):
    return [
        program("prometheus"),
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/prometheus",
        f"--web.listen-address={HOST}:{port}",
    ]


def _alertmanager(folder, port):
    return [
        program("prometheus-alertmanager"),
        f"--config.file={folder}/alertmanager.yml",
        f"--storage.path={folder}/alertmanager",
        f"--web.listen-address={HOST}:{port}",
        "--cluster.listen-address=",
    ]


def _read(address):
    with urllib.request.urlopen(address, timeout=10) as answer:
        return json.load(answer)


def _is_ready(address):
    try:
        with urllib.request.urlopen(f"{address}/-/ready", timeout=1):
            return True
    except OSError:
        return False
