"""Alerts posted to a server that is really there, or is not."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import torch

import gradwatch
from gradwatch.errors import ArgumentError, SinkError
from gradwatch.records import Cause, Health
from gradwatch.sinks import Webhook
from tests.made_up import alert, record, run_info


class Chat(ThreadingHTTPServer):
    """Answers with each of ``answers`` in turn, then with 200."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[int] = []
        self.headers: dict[str, str] = {}
        self.received: list[dict[str, Any]] = []
        self.threads: set[str] = set()
        self.may_answer = threading.Event()
        self.may_answer.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/secret"


class _Handler(BaseHTTPRequestHandler):
    server: Chat

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.may_answer.wait(30)
        self.server.received.append(body)
        self.send_response(self.server.answers.pop(0) if self.server.answers else 200)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def chat() -> Iterator[Chat]:
    server = Chat()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr("gradwatch.sinks.webhook.time.sleep", slept.append)
    return slept


def posted(url: str, *alerts: Any, **options: Any) -> Webhook:
    sink = Webhook(url, **options)
    sink.open(run_info(), Health)
    sink.write([record()], alerts)
    sink.close()
    assert sink.lost == 0
    return sink


def lost(url: str, *alerts: Any, **options: Any) -> tuple[int, str]:
    """How many did not arrive, and what is said of them."""
    sink = Webhook(url, **options)
    sink.open(run_info(), Health)
    with pytest.raises(SinkError) as failure:
        sink.write([record()], alerts)
    sink.close()
    return sink.lost, str(failure.value)


def test_firing_explained_and_resolved_are_told_apart(chat: Chat) -> None:
    cause = Cause("frozen", "mlp", {}, "Set requires_grad.")
    posted(chat.url, alert(step=3), alert("explained", 4, cause=cause), alert("resolved", 9))
    assert [(m["state"], m["step"], m["cause"]) for m in chat.received] == [
        ("firing", 3, None),
        ("explained", 4, "frozen at mlp"),
        ("resolved", 9, None),
    ]
    first = chat.received[0]
    assert first["text"] == f"[test-1] {alert(step=3)}" == first["content"]
    assert (first["run"], first["rule"], first["severity"], first["module"]) == (
        "test-1",
        "zero",
        "critical",
        "mlp",
    )


def test_warnings_may_be_left_out(chat: Chat) -> None:
    posted(chat.url, alert(severity="warning"), alert(step=2), least="critical")
    assert [m["step"] for m in chat.received] == [2]


def test_what_is_refused_for_a_time_is_tried_again(chat: Chat, pauses: list[float]) -> None:
    chat.answers = [503, 500, 429]
    sink = posted(chat.url, alert())
    assert (len(chat.received), sink.lost, pauses) == (4, 0, [1.0, 2.0, 4.0])


def test_a_server_may_say_how_long_to_wait(chat: Chat, pauses: list[float]) -> None:
    chat.answers, chat.headers = [429], {"Retry-After": "3"}
    posted(chat.url, alert())
    assert pauses == [3.0]


def test_what_is_refused_for_good_is_not_tried_again_and_holds_up_no_other(
    chat: Chat, pauses: list[float]
) -> None:
    chat.answers = [404, 404]
    number, said = lost(chat.url, alert(), alert("resolved", 2), alert(step=3))
    assert (len(chat.received), number, pauses) == (3, 2, [])
    assert said.startswith("2 of 3 alerts did not reach the webhook: the server answered 404")
    assert "secret" not in said


def test_where_nobody_listens_it_is_told_in_one_sentence(chat: Chat, pauses: list[float]) -> None:
    chat.server_close()
    number, said = lost(chat.url, alert(), tries=3)
    assert (number, pauses) == (1, [1.0, 2.0])
    assert "cannot be reached" in said


def test_a_server_that_speaks_no_http_is_told_of(pauses: list[float]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            for _ in range(2):
                client, _ = server.accept()
                with client:
                    client.recv(1 << 16)
                    client.sendall(b"220 smtp\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        number, said = lost(f"http://127.0.0.1:{server.getsockname()[1]}", alert(), tries=2)
        thread.join()
    assert number == 1
    assert "does not speak HTTP" in said


def test_what_is_lost_is_counted_among_the_failures(chat: Chat, pauses: list[float], caplog: Any) -> None:
    chat.server_close()
    net = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with gradwatch.track(optimizer, net, sinks=[Webhook(chat.url)]) as watch:
        for factor in [1.0] * 10 + [0.0] * 10:
            optimizer.zero_grad()
            (net(torch.ones(2, 2)).square().mean() * factor).backward()
            optimizer.step()
    assert watch.health().sink_errors["Webhook"]
    assert sum("did not reach the webhook" in said for said in caplog.messages) == 1


@pytest.mark.parametrize(
    ("url", "options"),
    [("ftp://x", {}), ("http://x", {"least": "info"}), ("http://[::1", {}), ("http://", {}), ("http://x:y", {})],
)
def test_what_cannot_be_meant_is_refused(url: str, options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match="was expected"):
        Webhook(url, **options)


def test_a_chat_that_does_not_answer_holds_up_no_step(chat: Chat) -> None:
    chat.may_answer.clear()
    net = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with gradwatch.track(optimizer, net, sinks=[Webhook(chat.url)], run="mine") as watch:
        for _ in range(40):
            optimizer.zero_grad()
            (net(torch.randn(4, 2)).mean() * 0).backward()
            optimizer.step()
        steps = watch["optimizer"].step
        waiting = len(chat.received)
        chat.may_answer.set()
    assert (steps, waiting) == (40, 0)
    assert [m["state"] for m in chat.received][:1] == ["firing"]
    assert [m["text"] for m in chat.received] == [f"[mine] {told}" for told in watch.alerts]
