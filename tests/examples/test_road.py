import math

import numpy as np
import pytest

from examples.carla_td3.env.road import LANE_WIDTH, SPACING, town, wrap_angle


@pytest.mark.parametrize("lane", [town().own, town().oncoming], ids=["own", "oncoming"])
def test_the_points_of_a_lane_are_evenly_spaced_and_close_the_loop(lane):
    steps = np.linalg.norm(np.roll(lane.points, -1, 0) - lane.points, axis=1)
    assert steps.max() < 1.001 * SPACING
    assert steps.min() > 0.99 * SPACING


@pytest.mark.parametrize("lane", [town().own, town().oncoming], ids=["own", "oncoming"])
@pytest.mark.parametrize("aside", [-2.0, 0.0, 1.3])
def test_a_point_beside_the_lane_is_found_at_its_arc_length_and_distance(lane, aside):
    for s in np.linspace(0.1, lane.length - 0.1, 97):
        x, y, heading = lane.poses(np.array([s]))[0]
        place = lane.locate(x - aside * math.sin(heading), y + aside * math.cos(heading))
        # In a corner, headings change by SPACING / radius between two points.
        assert place.lateral == pytest.approx(aside, abs=0.02)
        assert place.s == pytest.approx(s, abs=0.1)


def test_the_lanes_lie_beside_each_other_and_run_against_each_other():
    road = town()
    for s in np.linspace(0, road.own.length, 50):
        x, y, heading = road.own.poses(np.array([s]))[0]
        place = road.oncoming.locate(x, y)
        # Seen from the oncoming lane too, the other one is on the left.
        assert place.lateral == pytest.approx(-LANE_WIDTH, abs=0.05)
        assert abs(wrap_angle(place.heading - heading)) == pytest.approx(math.pi, abs=0.05)


def test_the_circuit_has_corners_to_both_sides():
    turns = np.diff(np.unwrap(town().own.headings))
    assert turns.max() > 0.01
    assert turns.min() < -0.01


def test_waypoints_are_two_metres_apart_along_a_straight():
    points = town().own.ahead(30.0, 25, 2.0)
    assert points.shape == (25, 2)
    assert np.linalg.norm(np.diff(points, axis=0), axis=1) == pytest.approx(2.0, abs=0.05)


@pytest.mark.parametrize(
    ("angle", "expected"), [(0.0, 0.0), (3 * math.pi / 2, -math.pi / 2), (-3 * math.pi / 2, math.pi / 2)]
)
def test_angles_wrap(angle, expected):
    assert wrap_angle(angle) == pytest.approx(expected)
