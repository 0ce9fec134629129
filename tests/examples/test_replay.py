import numpy as np
import pytest
import torch

from examples.carla_td3.replay import Replay

CPU = torch.device("cpu")


def observation(number):
    """A stack whose newest frame is ``number``."""
    frames = [np.full((84, 84), max(0, number - back), dtype=np.uint8) for back in (3, 2, 1, 0)]
    return {"image": np.stack(frames), "vector": np.full(53, number, dtype=np.float32)}


def add(replay, numbers):
    for n in numbers:
        action = np.array([n, -n], dtype=np.float32)
        replay.add(observation(n), action, 10.0 * n, observation(n + 1), terminated=n % 2 == 0)


def filled(folder, capacity, count, spare=0):
    replay = Replay(capacity, folder, spare)
    add(replay, range(count))
    return replay


def sampled(replay, size=200, seed=0):
    return replay.sample(size, np.random.default_rng(seed), CPU)


def held(replay):
    return set(sampled(replay).vector[:, 0].int().tolist())


def test_transitions_come_back_whole(tmp_path):
    batch = sampled(filled(tmp_path, capacity=10, count=6))
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


@pytest.mark.parametrize("spare", [0, 3])
def test_the_oldest_are_forgotten(tmp_path, spare):
    replay = filled(tmp_path, capacity=4, count=10, spare=spare)
    assert len(replay) == 4
    assert held(replay) == {6, 7, 8, 9}


def test_it_counts_what_it_holds(tmp_path):
    lengths = []
    for count in (0, 3, 4, 5):
        (tmp_path / str(count)).mkdir()
        lengths.append(len(filled(tmp_path / str(count), 4, count)))
    assert lengths == [0, 3, 4, 4]


def test_another_process_goes_on_where_the_state_was_taken(tmp_path):
    first = filled(tmp_path, capacity=4, count=9, spare=3)
    state, before = first.state_dict(), sampled(first)
    # What came after the state was taken, up to the next checkpoint, has overwritten nothing that it needs.
    add(first, [70, 80, 90])
    second = Replay(4, tmp_path, spare=3)
    second.load_state_dict(state)
    for one, other in zip(before, sampled(second), strict=True):
        assert torch.equal(one, other)


def test_pixels_are_kept_as_bytes(tmp_path):
    assert Replay(3, tmp_path)._frames.nbytes == 3 * 5 * 84 * 84


@pytest.mark.parametrize("writable", [0, 1])
def test_changing_an_observation_later_changes_nothing(tmp_path, writable):
    replay = Replay(2, tmp_path)
    now, following = observation(4), observation(5)
    replay.add(now, np.zeros(2, np.float32), 0.0, following, False)
    (now, following)[writable]["image"][:] = 99
    batch = sampled(replay, 1)
    assert 99 not in batch.image
    assert 99 not in batch.next_image
