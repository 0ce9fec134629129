"""Who may read an endpoint: TLS as prometheus-client takes it, and basic auth as a Prometheus server sends it."""

from __future__ import annotations

import hmac
import ssl
from base64 import b64encode
from typing import NamedTuple

__all__ = ["ANYBODY", "Access"]


class Access(NamedTuple):
    """What a client is asked for.

    Attributes:
        certfile: the certificate of the server, PEM; None: no TLS.
        keyfile: its key; None: it is in the same file.
        client_cafile: who must have signed the certificate that each client shows; None: no client needs one.
        username: for basic auth; None: nobody is asked.
        password: the one that goes with it.
    """

    certfile: str | None = None
    keyfile: str | None = None
    client_cafile: str | None = None
    username: str | None = None
    password: str | None = None

    @property
    def scheme(self) -> str:
        """Of the endpoint's URL."""
        return "http" if self.certfile is None else "https"

    def context(self) -> ssl.SSLContext | None:
        """For the server's sockets; None where there is no TLS.

        Raises:
            OSError: a file is missing, or is none of these.
        """
        if self.certfile is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certfile, self.keyfile)
        if self.client_cafile is not None:
            context.load_verify_locations(self.client_cafile)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def admits(self, authorization: str) -> bool:
        """Whether a request with this header may be answered; takes as long whatever is wrong with it."""
        if self.username is None:
            return True
        expected = b"Basic " + b64encode(f"{self.username}:{self.password}".encode())
        return hmac.compare_digest(authorization.encode("latin-1", "replace"), expected)


ANYBODY = Access()
