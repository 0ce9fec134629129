"""The one world of a CARLA server: taken over for the first episode, and given back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import Protocol

from examples.carla_td3.env.carla.handshake import PATIENCE, ServerError, container, find_client, find_server
from examples.carla_td3.env.driving import SECONDS

__all__ = ["ROLE", "Guest", "Server", "server_at"]

TOWN = "Town01"
# What is ours bears this name on the server, so that it is found again whatever has happened in between.
ROLE = "gradwatch"
# Seconds for a call: loading the town takes longest.
LONGEST_CALL = 60.0


class Guest(Protocol):
    """Who has an episode in the world."""

    def leave(self) -> None:
        """The episode ends here: what listens to the world stops."""


@lru_cache
def server_at(host: str, port: int) -> Server:
    """The server there; one object a process, since training and evaluation take turns in its one world."""
    return Server(host, port)


class Server:
    """A synchronous world of 20 ticks a second, with a Traffic Manager of its own.

    Args:
        host: name or address.
        port: of the server; that of the Traffic Manager lies 6,000 above, 8000 for 2000.

    Attributes:
        carla: the client's module.
        client: the connection; made when an episode begins.
        world: what is driven in.
        traffic: the Traffic Manager.
        traffic_port: its port.
    """

    def __init__(self, host: str, port: int) -> None:
        self.carla = find_client()
        self.traffic_port = port + 6000 if port + 6000 < 2**16 else port - 6000
        self._address = host, port
        self._undo = ExitStack()
        self._open = False
        self._holder: Guest | None = None

    def begin(self, holder: Guest, anew: bool) -> None:
        """An empty town for ``holder``, whose episode takes the place of whoever's was there.

        Args:
            holder: who drives now.
            anew: load the town again, without which CARLA does not promise that a seed repeats itself.
        """
        if not self._open:
            self._take_over()
        self.let_go()
        if anew:
            self.world = self.client.reload_world(False)
            # That starts the Traffic Manager anew as well.
            self.traffic.set_synchronous_mode(True)
        else:
            self._clear()
        self._holder = holder

    def is_held_by(self, who: Guest) -> bool:
        """Whether the episode in the world is theirs."""
        return self._holder is who

    def let_go(self) -> None:
        """The episode in the world is nobody's any more."""
        holder, self._holder = self._holder, None
        if holder is not None:
            holder.leave()

    def tick(self) -> int:
        """One tick; returns its frame."""
        frame: int = self.world.tick(LONGEST_CALL)
        return frame

    def close(self) -> None:
        """Destroy what is ours and restore the world's settings; a second call does nothing.

        Raises:
            ServerError: the server is there, but cannot be brought back to what it was.
        """
        if not self._open:
            return
        self.client.set_timeout(PATIENCE)
        try:
            self.client.get_server_version()
        except RuntimeError:
            # The server is gone, and its world with it.
            self._open, self._holder = False, None
            self._undo.pop_all()
            return
        self.client.set_timeout(LONGEST_CALL)
        self._open = False
        with self.telling("could not be given back as it was"):
            self._undo.close()

    @contextmanager
    def telling(self, what: str = "is lost") -> Iterator[None]:
        """Says in one sentence what the client's errors mean.

        Raises:
            ServerError: in place of the client's RuntimeError.
        """
        host, port = self._address
        try:
            yield
        except RuntimeError as error:
            raise ServerError(
                f"The CARLA server at {host}:{port} {what} ({str(error).strip()}): start it again with "
                f"{container(port)!r}."
            ) from error

    def _take_over(self) -> None:
        find_server(*self._address)
        self.client = self.carla.Client(*self._address)
        self.client.set_timeout(LONGEST_CALL)
        self.world = self.client.get_world()
        # From here on there is something to give back; each step says how before it is made.
        self._open = True
        try:
            before = self.world.get_settings()
            self._undo.callback(lambda: self.world.apply_settings(before))
            if self.world.get_map().name.rpartition("/")[2] != TOWN:
                self.world = self.client.load_world(TOWN, False)
            self.traffic = self.client.get_trafficmanager(self.traffic_port)
            # Undone last to first: a Traffic Manager that waits for ticks hangs in a world that makes them itself.
            self._undo.callback(lambda: self.traffic.set_synchronous_mode(False))
            self.traffic.set_synchronous_mode(True)
            settings = self.world.get_settings()
            settings.synchronous_mode = True
            settings.fixed_delta_seconds = SECONDS
            self.world.apply_settings(settings)
            self._undo.callback(self._clear)
            self._undo.callback(self.let_go)
        except BaseException:
            self.close()
            raise

    def _clear(self) -> None:
        """Destroy what bears our name; also what a killed run has left, or a spawn that was interrupted."""
        # The client lists the actors of the last tick.
        self.tick()
        ours = [actor for actor in self.world.get_actors() if actor.attributes.get("role_name") == ROLE]
        destroy = self.carla.command.DestroyActor
        self.client.apply_batch_sync([destroy(actor.id) for actor in ours], True)
