"""An HTTP server of one text that neither many clients nor slow ones can turn against the training."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any

from gradwatch.sinks.access import ANYBODY, Access

__all__ = ["Endpoint"]


class Endpoint(ThreadingTCPServer):
    """Answers every GET, whatever it accepts, with the same text, until ``end``.

    Args:
        address: host and port to listen on.
        content_type: of the text.
        text: makes it; called once a second at most.
        access: who is answered.
        tls: to speak TLS by; None: plain HTTP.

    Raises:
        OSError: the port is in use, or the address is not this machine's.
    """

    # Who comes while so many are served waits in the system's queue, which takes no descriptor here.
    CONNECTIONS = 8
    # A client that has its answer no sooner than that is sent away.
    LONGEST_SECONDS = 5.0
    TEXT_LASTS_SECONDS = 1.0
    # A client takes some 0.3 ms of the interpreter that trains: many more would be felt there.
    CLIENTS_A_SECOND = 50
    # After a client that could not be accepted.
    PAUSE_SECONDS = 0.1

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(
        self,
        address: tuple[str, int],
        content_type: str,
        text: Callable[[], bytes],
        access: Access = ANYBODY,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.content_type = content_type
        self.access = access
        self._tls = tls
        self._make_text = text
        self._text, self._made_at = b"", -float("inf")
        self._making = threading.Lock()
        self._since: dict[Any, float] = {}
        self._ending = False
        self._next_at = 0.0
        found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family = found[0][0]
        self._thread: threading.Thread | None = None
        super().__init__(address, _Handler)

    def begin(self) -> None:
        """Serve, in a thread; whoever holds it by now can end it, wherever an interrupt comes."""
        self._thread = threading.Thread(target=self._serve, name="gradwatch-endpoint", daemon=True)
        self._thread.start()

    def text(self) -> bytes:
        """The text, a second old at most."""
        with self._making:
            if time.monotonic() - self._made_at >= self.TEXT_LASTS_SECONDS:
                self._text, self._made_at = self._make_text(), time.monotonic()
            return self._text

    def end(self) -> None:
        """Send every client away and free the port; waits for the thread to see it, half a second at most."""
        self._ending = True
        if self._thread is not None and self._thread.is_alive():
            with suppress(OSError):  # not every system wakes by it who waits for clients
                self.socket.shutdown(socket.SHUT_RDWR)
            self.shutdown()
        self.server_close()
        self.service_actions()
        if self._thread is not None and self._thread.ident is not None:
            self._thread.join()

    def let_go_in_child(self) -> None:
        """Close what a forked child inherited; the threads live in the parent alone."""
        for one in (self.socket, *self._since):
            one.close()

    def _serve(self) -> None:
        while True:
            # What fails once is no reason to answer nobody any more.
            with suppress(BaseException):
                self.serve_forever()
            # Asked afterwards: ``shutdown`` waits for a thread that has not begun yet, too.
            if self._ending:
                break

    # What ThreadingTCPServer calls, in the thread that waits for clients but for ``shutdown_request``.

    def get_request(self) -> tuple[Any, Any]:
        """A client has come; what TLS has to agree on first is for the thread that serves it."""
        try:
            request, client_address = super().get_request()
        except OSError:
            # No descriptor is left: who waits is still there, and would be tried again and again without a pause.
            time.sleep(0.0 if self._ending else self.PAUSE_SECONDS)
            raise
        if self._tls is not None:
            request = self._tls.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
        return request, client_address

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a client in a thread of its own, once there is room."""
        # Who has to wait for slow clients has afterwards as long as they had.
        self._since[request] = float("inf")
        while (len(self._since) > self.CONNECTIONS or time.monotonic() < self._next_at) and not self._ending:
            self.service_actions()
            time.sleep(0.01)
        self._since[request] = time.monotonic()
        self._next_at = time.monotonic() + 1.0 / self.CLIENTS_A_SECOND
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """Send away who is here for too long; its thread then finds nothing left to read or write, and ends."""
        latest = time.monotonic() - self.LONGEST_SECONDS
        for request, since in list(self._since.items()):
            if since <= latest or self._ending:
                with suppress(OSError):
                    # Of a TLS socket too it is the connection that ends: its thread reads on in the meantime.
                    socket.socket.shutdown(request, socket.SHUT_RDWR)

    def shutdown_request(self, request: Any) -> None:
        """A client has been served."""
        super().shutdown_request(request)
        self._since.pop(request, None)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is nobody's concern."""


class _Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_GET(self) -> None:
        if self.server.access.admits(self.headers.get("Authorization", "")):
            self._answer(200, "Content-Type", self.server.content_type, self.server.text())
        else:
            self._answer(401, "WWW-Authenticate", 'Basic realm="gradwatch"', b"")

    def _answer(self, status: int, header: str, value: str, text: bytes) -> None:
        self.send_response(status)
        self.send_header(header, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(text)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:
        """Whoever scrapes is not told of on the terminal."""
