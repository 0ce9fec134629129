"""What the sensors send is matched by frame; a picture becomes small and gray."""

from collections import deque
from queue import SimpleQueue
from threading import Timer
from types import SimpleNamespace

import numpy as np
import pytest

from examples.carla_td3.env.carla import ServerError, sensors


def of(*frames):
    return [SimpleNamespace(frame=frame) for frame in frames]


def boxed(*frames):
    box = SimpleQueue()
    for data in of(*frames):
        box.put(data)
    return box


def test_the_picture_of_the_very_frame_is_taken_and_waited_for():
    assert sensors._picture(boxed(5, 6, 7), 7).frame == 7
    box = boxed(5)
    Timer(0.05, box.put, of(6)).start()
    assert sensors._picture(box, 6).frame == 6


def test_a_picture_that_does_not_come_is_an_error(monkeypatch):
    monkeypatch.setattr(sensors, "PATIENCE", 0.01)
    with pytest.raises(RuntimeError, match="no picture of frame 6"):
        sensors._picture(boxed(5), 6)
    with pytest.raises(ServerError, match="Another client ticks the world"):
        sensors._picture(boxed(5, 7), 6)


def test_events_count_in_their_frame_or_where_they_come_late_in_the_next():
    events = deque(of(4, 5, 7))
    assert [event.frame for event in sensors._until(events, 6)] == [4, 5]
    events.extend(of(6))
    assert [event.frame for event in sensors._until(events, 7)] == [7, 6]
    assert not events


def picture(pixels):
    height, width, _ = pixels.shape
    return SimpleNamespace(raw_data=pixels.tobytes(), height=height, width=width)


def test_a_picture_keeps_its_mean_its_sides_and_the_weight_of_its_colours():
    pixels = np.zeros((600, 800, 4), dtype=np.uint8)
    pixels[:300, :400] = (255, 255, 255, 7)
    small = sensors.small_and_gray(picture(pixels))
    assert (small.shape, small.dtype) == ((84, 84), np.uint8)
    assert (small[:42, :42] == 255).all()
    assert (small[42:] == 0).all()
    assert (small[:, 42:] == 0).all()
    # A line of one pixel is not lost, as it would be where every ninth is taken.
    lines = np.zeros((600, 800, 4), dtype=np.uint8)
    lines[:, ::40, :3] = 255
    assert sensors.small_and_gray(picture(lines)).mean() == pytest.approx(255 / 40, abs=0.5)
    for channel, share in enumerate((0.114, 0.587, 0.299)):
        one = np.zeros((600, 800, 4), dtype=np.uint8)
        one[:, :, channel] = 200
        assert (sensors.small_and_gray(picture(one)) == round(200 * share)).all()
