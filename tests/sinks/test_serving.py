"""Where the metrics are served, to whom, by which rank, and what is pushed in the end."""

import base64
import json
import shutil
import socket
import ssl
import subprocess
import threading
import urllib.error
import urllib.request
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from gradwatch.errors import ArgumentError, SinkError
from gradwatch.records import Health
from gradwatch.sinks import Prometheus
from gradwatch.sinks.discovery import as_target
from tests.made_up import alert, record, run_info


@pytest.fixture
def opened():
    sinks = []

    def open_one(port=0, rank=0, **options):
        sink = Prometheus(port, **options)
        sink.open(replace(run_info(), rank=rank), Health)
        sinks.append(sink)
        return sink

    yield open_one
    for sink in sinks:
        sink.close()


def scrape(url, context=None, **headers):
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=10, context=context) as answer:
        return answer.read().decode()


def free_ports(number):
    """The first of some ports in a row that are free."""
    for _ in range(100):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            first = probe.getsockname()[1]
        if first + number < 65536 and all(is_free(first + place) for place in range(number)):
            return first
    raise AssertionError("no ports are free")


def is_free(port):
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def test_port_0_takes_one_that_is_free_and_says_which(opened, caplog):
    first, second = opened(), opened()
    assert first.url != second.url
    for sink in (first, second):
        assert "gradwatch_build_info" in scrape(sink.url)
    said = [entry.getMessage() for entry in caplog.records]
    assert said == [
        f"Prometheus took a free port: the metrics of this run are at {sink.url}." for sink in (first, second)
    ]
    first.close()
    assert first.url is None


def test_a_port_in_use_is_told_in_one_sentence_that_offers_port_0(opened):
    port = int(opened().url.split(":")[2].split("/")[0])
    with pytest.raises(SinkError) as told:
        Prometheus(port).open(run_info(), Health)
    assert str(told.value) == (
        f"Prometheus cannot listen on 127.0.0.1:{port} (Address already in use): end what uses the port, give another "
        "one, or port=0 for any that is free."
    )


def test_a_port_that_is_none_with_its_rank_added_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "7")
    with pytest.raises(SinkError, match=r"cannot listen on 127\.0\.0\.1:65540"):
        Prometheus(65533, discovery=tmp_path).open(run_info(), Health)


@pytest.fixture(scope="module")
def signed(tmp_path_factory):
    """A certificate of 127.0.0.1 that has signed itself, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl, which makes the certificate, is not installed")
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    wanted = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=here -addext subjectAltName=IP:127.0.0.1"
    command = [openssl, *wanted.split(), "-keyout", key, "-out", cert]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


def test_tls_is_spoken_and_nothing_else(opened, signed):
    cert, key = signed
    sink = opened(certfile=cert, keyfile=key)
    assert sink.url.startswith("https://")
    # One that never begins to agree on anything holds up nobody.
    host, port = "127.0.0.1", int(sink.url.split(":")[2].split("/")[0])
    with socket.create_connection((host, port), timeout=10):
        assert "gradwatch_build_info" in scrape(sink.url, ssl.create_default_context(cafile=cert))
    with pytest.raises((urllib.error.URLError, ConnectionError)):
        scrape(sink.url.replace("https", "http"))
    assert "gradwatch_build_info" in scrape(sink.url, ssl.create_default_context(cafile=cert))


def test_a_client_must_show_a_certificate_where_one_is_asked_for(opened, signed):
    cert, key = signed
    sink = opened(certfile=cert, keyfile=key, client_cafile=cert)
    context = ssl.create_default_context(cafile=cert)
    with pytest.raises((urllib.error.URLError, ConnectionError, ssl.SSLError)):
        scrape(sink.url, context)
    context.load_cert_chain(cert, key)
    assert "gradwatch_build_info" in scrape(sink.url, context)


def test_a_certificate_that_is_none_is_told_in_one_sentence(tmp_path):
    (tmp_path / "none.pem").write_text("none")
    for name in ("none.pem", "missing.pem"):
        with pytest.raises(SinkError, match=r"by TLS .*: look at certfile"):
            Prometheus(0, certfile=tmp_path / name).open(run_info(), Health)


def basic(username, password):
    return {"Authorization": "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()}


def test_basic_auth_lets_in_who_knows_the_password(opened):
    sink = opened(username="prom", password="sesam: öffne dich")
    for headers in ({}, basic("prom", "no"), basic("", ""), {"Authorization": "\xff"}):
        with pytest.raises(urllib.error.HTTPError, match="401") as refused:
            scrape(sink.url, **headers)
        assert refused.value.headers["WWW-Authenticate"] == 'Basic realm="gradwatch"'
        assert refused.value.read() == b""
    assert "gradwatch_build_info" in scrape(sink.url, **basic("prom", "sesam: öffne dich"))


@pytest.mark.parametrize(
    ("options", "said"),
    [({"username": "a"}, "give both"), ({"password": "a"}, "give both"), ({"keyfile": "k"}, "give certfile too")],
)
def test_half_of_what_is_needed_is_refused(options, said):
    with pytest.raises(ArgumentError, match=said):
        Prometheus(0, **options)


def test_rank_0_alone_listens(opened):
    sink = opened(rank=1)
    sink.write([record()], [alert()])
    assert sink.url is None


def test_every_rank_listens_where_a_server_is_told_of_each(opened, tmp_path, monkeypatch):
    first = free_ports(3)
    sinks = []
    for rank in range(3):
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        sinks.append(opened(first, rank, discovery=tmp_path / "targets"))
    found = [json.loads(file.read_text()) for file in sorted((tmp_path / "targets").iterdir())]
    assert found == [[{"targets": [f"127.0.0.1:{first + rank}"], "labels": {}}] for rank in range(3)]
    for rank, sink in enumerate(sinks):
        assert f'rank="{rank}"' in scrape(f"http://127.0.0.1:{first + rank}/metrics")
        sink.close()
    assert list((tmp_path / "targets").iterdir()) == []


def test_a_target_by_tls_says_so(opened, tmp_path, signed):
    cert, key = signed
    opened(certfile=cert, keyfile=key, discovery=tmp_path)
    (file,) = tmp_path.glob("*.json")
    assert json.loads(file.read_text())[0]["labels"] == {"__scheme__": "https"}


def test_a_folder_of_targets_that_cannot_be_written_is_told_and_the_port_freed(tmp_path):
    (tmp_path / "file").write_text("")
    port = free_ports(1)
    with pytest.raises(SinkError, match="give as discovery a folder that is yours"):
        Prometheus(port, discovery=tmp_path / "file").open(run_info(), Health)
    assert is_free(port)


def test_a_target_is_an_address_that_another_machine_can_use():
    assert as_target("127.0.0.1", 1) == "127.0.0.1:1"
    assert as_target("::1", 1) == "[::1]:1"
    for everywhere in ("", "0.0.0.0", "::"):
        assert as_target(everywhere, 1) == f"{socket.gethostname()}:1"


class Gateway(HTTPServer):
    def __init__(self):
        self.taken = []
        super().__init__(("127.0.0.1", 0), GatewayHandler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class GatewayHandler(BaseHTTPRequestHandler):
    def do_PUT(self):
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.taken.append((self.path, text))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def gateway():
    gateway = Gateway()
    yield gateway
    gateway.shutdown()
    gateway.server_close()


def test_the_last_state_is_pushed_once_and_nothing_in_it_is_active(opened, gateway):
    sink = opened(pushgateway=gateway.url)
    sink.write([record(1), record(2)], [alert()])
    assert 'gradwatch_training_active{rank="0",run="test-1"} 1.0' in scrape(sink.url)
    sink.close()
    sink.close()
    ((path, text),) = gateway.taken
    assert path == "/metrics/job/gradwatch/rank/0/run/test-1"
    lines = text.splitlines()
    assert 'gradwatch_steps_total{optimizer="actor",rank="0",run="test-1"} 2.0' in lines
    assert any(line.startswith("gradwatch_alerts_total{") and line.endswith(" 1.0") for line in lines)
    active = [
        line
        for line in lines
        if line.startswith(("gradwatch_training_active", "gradwatch_alert_active", "gradwatch_alert_info"))
    ]
    assert len(active) > 3
    assert {line.split()[-1] for line in active} == {"0.0"}


def test_a_gateway_that_is_not_there_is_told_and_the_port_is_freed_all_the_same():
    port, nobody = free_ports(1), free_ports(1)
    sink = Prometheus(port, pushgateway=f"http://127.0.0.1:{nobody}")
    sink.open(run_info(), Health)
    with pytest.raises(SinkError, match=r"has not taken the last state of the run \(.*refused.*\)"):
        sink.close()
    assert is_free(port)


def test_a_run_that_has_not_begun_pushes_nothing(gateway, tmp_path):
    """What a run before it has left at the gateway stays there, and nobody is told of a gateway."""
    port = free_ports(1)
    (tmp_path / "file").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        for sink in (
            Prometheus(port, pushgateway=gateway.url),
            Prometheus(0, discovery=tmp_path / "file", pushgateway=gateway.url),
        ):
            with pytest.raises(SinkError, match=r"Address already in use|cannot be written"):
                sink.open(run_info(), Health)
            sink.close()
    assert gateway.taken == []
