import numpy as np
import pytest
import torch

from examples.carla_td3.replay import Replay

CPU = torch.device("cpu")


def observation(number):
    """A stack whose newest frame is ``number``."""
    frames = [np.full((84, 84), max(0, number - back), dtype=np.uint8) for back in (3, 2, 1, 0)]
    return {"image": np.stack(frames), "vector": np.full(53, number, dtype=np.float32)}


def filled(capacity, count):
    replay = Replay(capacity, seed=0)
    for n in range(count):
        action = np.array([n, -n], dtype=np.float32)
        replay.add(observation(n), action, 10.0 * n, observation(n + 1), terminated=n % 2 == 0)
    return replay


def test_transitions_come_back_whole():
    batch = filled(capacity=10, count=6).sample(200, CPU)
    n = batch.vector[:, 0]
    assert set(n.int().tolist()) == set(range(6))
    assert batch.image.shape == batch.next_image.shape == (200, 4, 84, 84)
    assert batch.image.dtype == torch.uint8
    assert torch.equal(batch.image[:, -1, 0, 0].float(), n)
    assert torch.equal(batch.next_image[:, -1, 0, 0].float(), n + 1)
    assert torch.equal(batch.next_image[:, :3], batch.image[:, 1:])
    assert torch.equal(batch.next_vector[:, 0], n + 1)
    assert torch.equal(batch.action, torch.stack([n, -n], dim=1))
    assert torch.equal(batch.reward[:, 0], 10 * n)
    assert torch.equal(batch.not_done[:, 0], n % 2)


def test_the_oldest_are_overwritten():
    replay = filled(capacity=4, count=10)
    assert len(replay) == 4
    assert set(replay.sample(100, CPU).vector[:, 0].int().tolist()) == {6, 7, 8, 9}


def test_it_counts_what_it_holds():
    assert [len(filled(4, count)) for count in (0, 3, 4, 5)] == [0, 3, 4, 4]


def test_the_seed_decides_the_sample():
    first, second = filled(10, 8).sample(20, CPU), filled(10, 8).sample(20, CPU)
    assert torch.equal(first.reward, second.reward)


def test_memory_holds_pixels_as_bytes():
    frames = Replay(3, seed=0)._frames
    assert frames.nbytes == 3 * 5 * 84 * 84


@pytest.mark.parametrize("writable", [0, 1])
def test_changing_an_observation_later_changes_nothing(writable):
    replay = Replay(2, seed=0)
    now, following = observation(4), observation(5)
    replay.add(now, np.zeros(2, np.float32), 0.0, following, False)
    (now, following)[writable]["image"][:] = 99
    batch = replay.sample(1, CPU)
    assert 99 not in batch.image
    assert 99 not in batch.next_image
