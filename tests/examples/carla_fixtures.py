"""CARLA's environment on the stand-in."""

from examples.carla_td3.env.carla import CarlaEnv, Server, server
from tests.examples import carla_stand_in_server as stand_in


def simulation(monkeypatch, town="Carla/Maps/Town01"):
    """A server of the stand-in and its address."""
    address = "nowhere", 2000 + len(stand_in.SIMULATIONS)
    monkeypatch.setitem(stand_in.SIMULATIONS, address, stand_in.Simulation(town))
    monkeypatch.setattr(server, "find_client", lambda: stand_in.CARLA)
    # It asks on a socket, see test_carla_client.py.
    monkeypatch.setattr(server, "find_server", lambda *address: None)
    return stand_in.SIMULATIONS[address], address


def carla_env(monkeypatch, **options):
    """An environment on a server of its own."""
    _, address = simulation(monkeypatch)
    return CarlaEnv(Server(*address), **options)
