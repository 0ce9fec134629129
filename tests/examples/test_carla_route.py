"""Routes and the vehicle ahead, without CARLA's client; on its real map see test_carla_client.py."""

import math

import numpy as np
import pytest

from examples.carla_td3.env.car import CAR_LENGTH
from examples.carla_td3.env.carla import Server
from examples.carla_td3.env.carla.route import Route
from examples.carla_td3.env.carla.traffic import ahead, populate
from tests.examples.carla_fixtures import simulation


@pytest.fixture(scope="module")
def eight():
    """A route that crosses itself in the middle: 100 m east, a loop to the right of 20 m radius, and north across it."""
    straight = np.stack([np.arange(0.0, 100.0, 0.5), np.zeros(200)], axis=1)
    angles = np.arange(0.0, 1.5 * np.pi, 0.5 / 20)
    loop = np.stack([100 + 20 * np.sin(angles), 20 - 20 * np.cos(angles)], axis=1)
    up = np.stack([np.full(100, 80.0), loop[-1, 1] - np.arange(0.5, 50.5, 0.5)], axis=1)
    points = np.concatenate([straight, loop, up])
    headings = np.concatenate([np.zeros(200), angles, np.full(100, 1.5 * np.pi)])
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    return Route(points, headings, np.concatenate([[0.0], np.cumsum(steps)]))


def test_where_a_route_crosses_itself_the_car_is_where_it_was_before(eight):
    first = eight.locate(80.0, 0.3, near=78.0)
    assert (first.s, first.lateral) == pytest.approx((80.0, 0.3), abs=0.01)
    second = eight.locate(80.0, 0.3, near=eight.length - 29.0)
    assert second.s > 200
    assert (second.lateral, math.sin(second.heading)) == pytest.approx((0.0, -1.0), abs=0.01)


def test_the_end_of_a_route_is_a_place_too(eight):
    x, y = eight.points[-1]
    assert eight.locate(x, y - 3.0, near=eight.length).s == pytest.approx(eight.length + 3.0, abs=0.01)
    assert eight.ahead(eight.length - 3.0, 2, 2.0)[1] == pytest.approx([x, y])


def test_the_vehicle_ahead_is_the_first_in_the_lane_that_is_driven_along(eight):
    beside, behind, far = (30.0, 3.5, 9.0, 0.0), (5.0, 0.0, 9.0, 0.0), (95.0, 0.0, 9.0, 0.0)
    assert ahead(eight, 10.0, np.array([beside, behind, far])) == (math.inf, 0.0)
    assert ahead(eight, 10.0, np.empty((0, 4))) == (math.inf, 0.0)
    crossing, near = (60.0, 0.5, 0.0, 7.0), (40.0, 0.5, 4.0, 0.0)
    assert ahead(eight, 10.0, np.array([crossing, near, beside])) == pytest.approx((30.0 - CAR_LENGTH, 4.0))
    # One that comes across has no speed along the route.
    assert ahead(eight, 10.0, np.array([crossing])) == pytest.approx((50.0 - CAR_LENGTH, 0.0))


def test_other_vehicles_are_seeded_cars_and_the_next_start_steps_in_for_a_taken_one(monkeypatch):
    def speeds(seed):
        simulated, address = simulation(monkeypatch)
        server = Server(*address)
        server._take_over()
        starts = simulated.world.get_map().get_spawn_points()
        ids = populate(server, 3, [starts[0], starts[0], *starts[2:8]], np.random.default_rng(seed))
        assert {simulated.actors[each].type_id for each in ids} <= {"vehicle.tesla.model3", "vehicle.audi.tt"}
        found = [simulated.actors[each]._speed for each in ids]
        server.close()
        assert not simulated.actors
        return found

    assert len(speeds(1)) == 3
    assert speeds(1) == speeds(1) != speeds(2)
