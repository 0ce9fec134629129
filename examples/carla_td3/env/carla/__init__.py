"""The backend on a CARLA server, see docs/carla.md: the real client, imported where it is asked for."""

from examples.carla_td3.env.carla.environment import CarlaEnv
from examples.carla_td3.env.carla.handshake import ServerError, find_server
from examples.carla_td3.env.carla.server import Server, server_at

__all__ = ["CarlaEnv", "Server", "ServerError", "find_server", "server_at"]
