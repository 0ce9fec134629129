"""Is there a CARLA server of the client's version: asked before anything is made, answered in one sentence."""

from __future__ import annotations

import importlib
import socket
from typing import Any

__all__ = ["VERSION", "ServerError", "container", "find_client", "find_server"]

VERSION = "0.9.16"
# Seconds that a server may take to say who it is.
PATIENCE = 2.0
# The first question of the client, in MessagePack-RPC: request 0, "version"; and how any answer to it begins.
QUESTION, ANSWER = b"\x94\x00\x00\xa7version\x91\x91\xc2", b"\x94\x01"


class ServerError(Exception):
    """There is no server to drive on, or none any more; its message is one sentence that says what to do."""


def container(port: int) -> str:
    """The command that starts a server."""
    return (
        "docker run --rm --runtime=nvidia --net=host --env=NVIDIA_VISIBLE_DEVICES=all "
        f"--env=NVIDIA_DRIVER_CAPABILITIES=all carlasim/carla:{VERSION} bash CarlaUE4.sh -RenderOffScreen -nosound"
        + ("" if port == 2000 else f" -carla-rpc-port={port}")
    )


def find_client() -> Any:
    """The module ``carla``.

    Raises:
        ServerError: it is not installed, or not of the version that this backend was written for.
    """
    try:
        return importlib.import_module("carla")
    except ImportError as error:
        raise ServerError(
            f"--env carla needs CARLA's client, which cannot be imported here ({error}): pip install "
            f"carla=={VERSION} (Python 3.10 to 3.12), or use --env embedded."
        ) from error


def find_server(host: str, port: int) -> None:
    """Return if a server of the client's version answers within a few seconds.

    Raises:
        ServerError: nobody is there, or somebody else, or the versions differ.
    """
    carla = find_client()
    _ask(host, port)
    client = carla.Client(host, port)
    client.set_timeout(PATIENCE)
    ours = client.get_client_version()
    try:
        theirs = client.get_server_version()
    except RuntimeError as error:
        raise _nobody(host, port, f"refuses to say its version: {error}") from error
    if theirs != ours:
        raise ServerError(
            f"--env carla found CARLA {theirs} at {host}:{port}, but the client is {ours}: pip install "
            f"carla=={theirs}, or start the other server with {container(port)!r}."
        )


def _ask(host: str, port: int) -> None:
    """The client's own first question on a plain socket: an answer that is not CARLA's aborts the real client."""
    try:
        with socket.create_connection((host, port), timeout=PATIENCE) as connection:
            connection.sendall(QUESTION)
            answer = connection.recv(1024)
    except TimeoutError as error:
        raise _nobody(host, port, "nobody answers") from error
    except (OSError, UnicodeError) as error:
        raise _nobody(host, port, getattr(error, "strerror", None) or str(error)) from error
    if not answer.startswith(ANSWER):
        raise _nobody(
            host, port, "what answers is no CARLA server" if answer else "the connection is closed at once"
        )


def _nobody(host: str, port: int, why: str) -> ServerError:
    return ServerError(
        f"--env carla found no CARLA server at {host}:{port} ({why}): start one with {container(port)!r}, or use "
        "--env embedded."
    )
