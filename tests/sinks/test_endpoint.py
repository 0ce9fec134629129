"""Clients that are many, slow, or ask for something else."""

import errno
import http.client
import socket
import sys
import threading
import time
import urllib.request
from contextlib import suppress
from socketserver import ThreadingTCPServer

import pytest

from gradwatch.sinks.endpoint import Endpoint


class Text:
    """Counts how often it is made."""

    def __init__(self):
        self.made = 0

    def __call__(self):
        self.made += 1
        return b"a 1\n"


@pytest.fixture
def text():
    return Text()


@pytest.fixture
def endpoint(text):
    endpoint = Endpoint(("127.0.0.1", 0), "text/plain", text)
    endpoint.begin()
    yield endpoint
    endpoint.end()


def get(endpoint, method="GET", **headers):
    connection = http.client.HTTPConnection(*endpoint.server_address, timeout=20)
    connection.request(method, "/metrics", headers=headers)
    answer = connection.getresponse()
    found = answer.status, answer.getheader("Content-Type"), answer.read()
    connection.close()
    return found


@pytest.mark.parametrize("accept", ["", "*/*", "application/openmetrics-text;q=x", "text/html", "\xff;;,q=,"])
def test_any_accept_header_is_answered(endpoint, accept):
    assert get(endpoint, Accept=accept) == (200, "text/plain", b"a 1\n")


def test_a_head_has_no_body(endpoint):
    assert get(endpoint, "HEAD") == (200, "text/plain", b"")


def test_the_text_is_made_anew_only_when_it_is_old(endpoint, text, monkeypatch):
    monkeypatch.setattr(Endpoint, "TEXT_LASTS_SECONDS", 1000.0)
    for _ in range(5):
        get(endpoint)
    assert text.made == 1
    monkeypatch.setattr(Endpoint, "TEXT_LASTS_SECONDS", 0.0)
    get(endpoint)
    assert text.made == 2


def connect(endpoint):
    return socket.create_connection(endpoint.server_address, timeout=20)


def waiting(condition):
    for _ in range(2000):
        if condition():
            return True
        time.sleep(0.005)
    return False


def test_of_many_slow_clients_few_are_held_and_a_scrape_gets_its_turn(endpoint, monkeypatch):
    monkeypatch.setattr(Endpoint, "LONGEST_SECONDS", 0.2)
    before = threading.active_count()
    slow = [connect(endpoint) for _ in range(30)]
    try:
        # The one that waits in the thread of the server is not served yet.
        assert waiting(lambda: len(endpoint._since) >= Endpoint.CONNECTIONS)
        assert threading.active_count() - before <= Endpoint.CONNECTIONS
        assert len(endpoint._since) <= Endpoint.CONNECTIONS + 1
        assert get(endpoint)[0] == 200
    finally:
        for one in slow:
            one.close()
    assert waiting(lambda: not endpoint._since)


def test_many_scrapers_at_once_are_all_answered(endpoint):
    seen = []
    threads = [threading.Thread(target=lambda: seen.append(get(endpoint)[0])) for _ in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert seen == [200] * 60


def test_200_scrapers_and_200_slow_clients_take_few_threads_and_descriptors(endpoint, text, monkeypatch):
    monkeypatch.setattr(Endpoint, "LONGEST_SECONDS", 0.3)
    monkeypatch.setattr(Endpoint, "CLIENTS_A_SECOND", 1000)
    most = {"held": 0, "threads": 0}
    finish = Endpoint.process_request_thread

    def noted(self, request, client_address):
        most["held"] = max(most["held"], len(self._since))
        serving = [thread for thread in threading.enumerate() if "process_request_thread" in thread.name]
        most["threads"] = max(most["threads"], len(serving))
        finish(self, request, client_address)

    monkeypatch.setattr(Endpoint, "process_request_thread", noted)
    slow, answers = [], []

    def come_slowly():
        # Half of a request, of which the rest never comes.
        for _ in range(200):
            slow.append(connect(endpoint))
            with suppress(OSError):
                slow[-1].sendall(b"GET /met")

    def come_often():
        answers.extend(get(endpoint)[0] for _ in range(20))

    clients = [threading.Thread(target=target) for target in (come_slowly, *[come_often] * 10)]
    for client in clients:
        client.start()
    for client in clients:
        client.join(60)
    assert answers == [200] * 200
    assert len(slow) == 200
    # The one that waits in the thread of the server is not served yet.
    assert most["held"] <= Endpoint.CONNECTIONS + 1
    assert most["threads"] <= Endpoint.CONNECTIONS + 1
    assert waiting(lambda: not endpoint._since)
    for one in slow:
        one.close()


def test_however_many_clients_come_they_are_served_at_a_bounded_rate(endpoint, monkeypatch):
    monkeypatch.setattr(Endpoint, "CLIENTS_A_SECOND", 10)
    began = time.monotonic()
    for _ in range(6):
        assert get(endpoint)[0] == 200
    # The first one waits for nobody.
    assert time.monotonic() - began >= 0.5


def test_who_had_to_wait_for_a_slow_client_is_not_sent_away_for_that(monkeypatch):
    monkeypatch.setattr(Endpoint, "LONGEST_SECONDS", 2.0)
    monkeypatch.setattr(Endpoint, "CONNECTIONS", 1)
    endpoint = Endpoint(("127.0.0.1", 0), "text/plain", lambda: time.sleep(0.5) or b"late")
    endpoint.begin()
    try:
        with connect(endpoint):
            assert waiting(lambda: endpoint._since)
            assert get(endpoint)[2] == b"late"
    finally:
        endpoint.end()


def test_the_end_waits_for_no_slow_client():
    endpoint = Endpoint(("127.0.0.1", 0), "text/plain", Text())
    endpoint.begin()
    slow = [connect(endpoint) for _ in range(12)]
    assert waiting(lambda: len(endpoint._since) >= Endpoint.CONNECTIONS)
    endpoint.end()
    assert waiting(lambda: not endpoint._since)
    for one in slow:
        one.close()


def test_what_cannot_be_made_or_sent_disturbs_no_other(capsys):
    made = iter([RuntimeError("no"), b"b 2\n"])

    def text():
        one = next(made)
        if isinstance(one, Exception):
            raise one
        return one

    endpoint = Endpoint(("127.0.0.1", 0), "text/plain", text)
    endpoint.begin()

    try:
        with pytest.raises(http.client.HTTPException):
            get(endpoint)
        with connect(endpoint) as gone:
            gone.sendall(b"nonsense\r\n\r\n")
        with urllib.request.urlopen(f"http://127.0.0.1:{endpoint.server_address[1]}/", timeout=10) as answer:
            assert answer.read() == b"b 2\n"
    finally:
        endpoint.end()
    assert capsys.readouterr().err == ""


def test_where_no_descriptor_is_left_it_does_not_try_again_and_again(endpoint, monkeypatch):
    """Each try would let go of the interpreter that trains, and take it again."""
    tries = []

    def exhausted(_):
        tries.append(time.monotonic())
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(ThreadingTCPServer, "get_request", exhausted)
        waits = threading.Thread(target=get, args=(endpoint,))
        waits.start()
        time.sleep(0.5)
        assert 0 < len(tries) <= 6
    waits.join(20)
    assert not waits.is_alive()


def test_one_that_an_interrupt_met_before_it_served_is_ended_all_the_same():
    for begun in (False, True):
        endpoint = Endpoint(("127.0.0.1", 0), "text/plain", Text())
        if begun:  # made, and not started
            endpoint._thread = threading.Thread(target=endpoint._serve)
        endpoint.end()
        with pytest.raises(OSError, match=r"closed file|Bad file descriptor"):
            endpoint.socket.getsockname()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere it may be asked twice a second only")
def test_who_ends_it_does_not_wait_until_it_is_asked_whether_it_is_to_end(monkeypatch):
    serve = Endpoint.serve_forever
    monkeypatch.setattr(Endpoint, "serve_forever", lambda self: serve(self, poll_interval=1000))
    endpoint = Endpoint(("127.0.0.1", 0), "text/plain", lambda: b"")
    endpoint.begin()
    ending = threading.Thread(target=endpoint.end, daemon=True)
    ending.start()
    ending.join(10)
    assert not ending.is_alive()
