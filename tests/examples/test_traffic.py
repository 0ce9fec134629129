import numpy as np
import pytest

from examples.carla_td3.env.car import CAR_LENGTH, CAR_WIDTH, Car
from examples.carla_td3.env.collision import any_overlap
from examples.carla_td3.env.road import town
from examples.carla_td3.env.traffic import Column, idm_acceleration

FAR = 1e9


def acceleration(speed, gap, closing, desired=8.0):
    return float(idm_acceleration(*(np.array([float(v)]) for v in (speed, desired, gap, closing)))[0])


def test_a_free_road_pulls_towards_the_desired_speed_and_no_further():
    assert acceleration(0, FAR, 0) == pytest.approx(1.5)
    assert acceleration(8, FAR, 0) == pytest.approx(0.0, abs=1e-9)
    assert acceleration(9, FAR, 0) < 0


def test_the_published_formula_at_one_point():
    # s* = 2 + 5 * 1.5 + 5 * 1 / (2 sqrt(1.5 * 2)); a = 1.5 (1 - (5/8)^4 - (s*/20)^2)
    wanted_gap = 2 + 7.5 + 5 / (2 * 3**0.5)
    assert acceleration(5, 20, 1) == pytest.approx(1.5 * (1 - (5 / 8) ** 4 - (wanted_gap / 20) ** 2))


def test_braking_has_a_limit():
    assert acceleration(8, 0.2, 8) == -8.0


@pytest.mark.parametrize("count", [10, 25, 50])
def test_vehicles_never_run_into_each_other(count):
    lane = town().own
    column = Column(lane, count, 0.0, np.random.default_rng(1))
    # Far from the lane, so that the car is in nobody's way.
    away = Car(1e4, 1e4, 0.0)
    before = column.s.copy()
    for _ in range(1000):
        column.advance(away, 0.05)
        gaps = (np.roll(column.s, -1) - column.s) % lane.length - CAR_LENGTH
        assert gaps.min() > 0
        assert gaps.sum() == pytest.approx(lane.length - count * CAR_LENGTH)
    assert not np.allclose(before, column.s)


def test_they_stop_behind_a_car_that_stands_in_their_lane():
    lane = town().own
    column = Column(lane, 10, 0.0, np.random.default_rng(1))
    x, y, heading = lane.poses(np.array([0.0]))[0]
    standing = Car(x, y, heading)
    for _ in range(3000):
        column.advance(standing, 0.05)
        assert not any_overlap((x, y, heading), column.poses())
    behind = (0.0 - column.s) % lane.length
    assert behind.min() == pytest.approx(CAR_LENGTH + 2.0, abs=0.7)
    assert column.speed.max() < 0.2


def test_the_start_of_the_car_is_left_free():
    for seed in range(20):
        column = Column(town().own, 50, 123.0, np.random.default_rng(seed))
        distance = (column.s - 123.0) % column.lane.length
        assert min(distance.min(), column.lane.length - distance.max()) > CAR_LENGTH + 1


def test_the_vehicle_ahead_is_the_next_one_also_across_the_seam():
    column = Column(town().own, 3, 0.0, np.random.default_rng(0))
    column.s = np.array([10.0, 400.0, 700.0])
    column.speed = np.array([1.0, 2.0, 3.0])
    assert column.next_ahead(650.0) == pytest.approx((50.0 - CAR_LENGTH, 3.0))
    assert column.next_ahead(column.lane.length - 10) == pytest.approx((20.0 - CAR_LENGTH, 1.0))


def test_too_many_vehicles_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        Column(town().own, 500, 0.0, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("other", "touches"),
    [
        ((CAR_LENGTH - 0.01, 0.0, 0.0), True),
        ((CAR_LENGTH + 0.01, 0.0, 0.0), False),
        ((0.0, CAR_WIDTH - 0.01, 0.0), True),
        ((0.0, CAR_WIDTH + 0.01, 0.0), False),
        # Crosswise: half a length and half a width.
        (((CAR_LENGTH + CAR_WIDTH) / 2 - 0.01, 0.0, np.pi / 2), True),
        (((CAR_LENGTH + CAR_WIDTH) / 2 + 0.01, 0.0, np.pi / 2), False),
        # The boxes' bounding boxes overlap, they do not: only the turned box's own axis tells.
        ((3.3, 2.6, -np.pi / 4), False),
    ],
)
def test_boxes_touch(other, touches):
    assert any_overlap((0.0, 0.0, 0.0), np.array([other])) is touches
    turned = 0.7
    c, s = np.cos(turned), np.sin(turned)
    rotated = (c * other[0] - s * other[1] + 5, s * other[0] + c * other[1] - 3, other[2] + turned)
    assert any_overlap((5.0, -3.0, turned), np.array([rotated])) is touches


def test_the_car_turns_on_the_circle_of_its_steering():
    car = Car(0.0, 0.0, 0.0, speed=5.0)
    for _ in range(2000):
        car = car.driven(1.0, 0.1 + 0.02 * 5 / 3, 0.05)
    assert 0 < car.speed < 30
    slip = np.arctan(0.5 * np.tan(0.6))
    radius = 2.875 / (np.cos(slip) * np.tan(0.6))
    following = car.driven(1.0, 0.0, 0.05)
    turned = (following.heading - car.heading + np.pi) % (2 * np.pi) - np.pi
    travelled = 0.05 * (car.speed + following.speed) / 2
    assert turned == pytest.approx(travelled / radius)


def test_brakes_stop_the_car_and_do_not_reverse_it():
    car = Car(0.0, 0.0, 0.0, speed=8.0)
    for _ in range(100):
        car = car.driven(0.0, -1.0, 0.05)
    assert car.speed == 0.0
    assert car.x == pytest.approx(8.0**2 / 2 / 8.1, rel=0.05)
