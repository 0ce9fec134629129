import numpy as np
import pytest

from examples.carla_td3.env.camera import HORIZON, SIDE, Camera
from examples.carla_td3.env.road import ASPHALT, CELL, Ground, town

NOBODY = np.empty((0, 3))


def world(paint):
    """A ground of 200 x 200 m around (0, 0), gray 100, with ``paint(x, y)`` true where it is white."""
    at = np.arange(-100, 100, CELL) + CELL / 2
    x, y = np.meshgrid(at, at)
    return Ground(np.where(paint(x, y), 255, 100).astype(np.uint8), (-100.0, -100.0))


def test_a_picture_has_its_size_and_type():
    picture = Camera(town().ground).picture((0.0, 0.0, 0.0), NOBODY)
    assert picture.shape == (SIDE, SIDE)
    assert picture.dtype == np.uint8


@pytest.mark.parametrize("heading", [0.0, 1.0, -2.5])
def test_what_is_right_of_the_car_is_right_in_the_picture(heading):
    camera = Camera(world(lambda x, y: -np.sin(heading) * x + np.cos(heading) * y > 0))
    below = camera.picture((0.0, 0.0, heading), NOBODY)[HORIZON + 2 :]
    assert (below[:, 44:] == 255).all()
    assert (below[:, :40] == 100).all()


def test_a_line_ahead_appears_in_the_row_that_the_pinhole_gives():
    # 1.5 m up, 400 px of focal length: 8 m ahead of the camera, that is 10 m ahead of the car, lies at row
    # 300 + 1.5 * 400 / 8 = 375 of 600.
    camera = Camera(world(lambda x, y: x < 10.0))
    column = camera.picture((0.0, 0.0, 0.0), NOBODY)[:, SIDE // 2]
    first_white = HORIZON + int(np.flatnonzero(column[HORIZON:] == 255)[0])
    assert first_white == pytest.approx(375 * SIDE / 600, abs=1)


def test_moving_the_car_moves_the_picture():
    camera = Camera(world(lambda x, y: x > 40.0))
    white = [(camera.picture((x, 0.0, 0.0), NOBODY)[HORIZON:] == 255).sum() for x in (0.0, 20.0, 35.0, 60.0)]
    assert white == sorted(white)
    assert white[-1] == HORIZON * SIDE


def test_a_car_ahead_grows_as_it_comes_closer_and_one_behind_is_not_seen():
    camera = Camera(world(lambda x, y: x > 1e9))
    empty = camera.picture((0.0, 0.0, 0.0), NOBODY)

    def changed(x, y=0.0):
        return int((camera.picture((0.0, 0.0, 0.0), np.array([[x, y, 0.0]])) != empty).sum())

    assert changed(10.0) > changed(20.0) > changed(50.0) > 0
    assert changed(-10.0) == 0
    assert changed(500.0) == 0


def test_a_car_to_the_left_is_drawn_left_and_the_nearer_one_covers_the_farther():
    camera = Camera(world(lambda x, y: x > 1e9))
    empty = camera.picture((0.0, 0.0, 0.0), NOBODY)
    near, far = [12.0, -5.0, 0.0], [30.0, 0.0, 0.0]
    picture = camera.picture((0.0, 0.0, 0.0), np.array([near]))
    assert np.flatnonzero((picture != empty).any(axis=0)).max() < SIDE // 2
    straight = [10.0, 0.0, 0.0]
    one = camera.picture((0.0, 0.0, 0.0), np.array([straight]))
    both = camera.picture((0.0, 0.0, 0.0), np.array([straight, far]))
    assert both[HORIZON + 1, SIDE // 2] == one[HORIZON + 1, SIDE // 2]


def test_from_the_lane_the_road_is_seen():
    lane = town().own
    x, y, heading = lane.poses(np.array([60.0]))[0]
    picture = Camera(town().ground).picture((x, y, heading), NOBODY)
    assert abs(float(np.median(picture[-10:])) - ASPHALT) < 10
    assert picture[:HORIZON].min() > 150
