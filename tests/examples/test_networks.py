import pytest
import torch

from examples.carla_td3.networks import Actor, TwinCritic, make_cnn, normalised


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("layer_norm", "parameters"), [(True, 1_727_392), (False, 1_684_128)])
def test_the_cnn_has_its_parameters_and_its_shape(layer_norm, parameters):
    cnn = make_cnn(layer_norm)
    assert count(cnn) == parameters
    assert cnn(torch.zeros(2, 4, 84, 84)).shape == (2, 512)


def test_the_actor_has_its_parameters_and_stays_in_its_range():
    actor = Actor()
    assert count(actor) == 211_202
    action = actor(100 * torch.randn(5, 512), torch.randn(5, 53))
    assert action.shape == (5, 2)
    assert action.abs().max() <= 1.0


def test_the_last_layer_starts_as_small_as_asked():
    last = Actor(last_layer=1e-3).last
    assert 0 < last.weight.abs().max() <= 1e-3
    assert last.bias.abs().max() <= 1e-3
    assert Actor().last.weight.abs().max() > 1e-2


def test_each_q_head_has_its_parameters_and_they_differ():
    critic = TwinCritic()
    assert count(critic.q1) == count(critic.q2) == 211_457
    given = torch.randn(3, 512), torch.randn(3, 53), torch.randn(3, 2)
    q1, q2 = critic(*given)
    assert q1.shape == q2.shape == (3, 1)
    assert (q1 != q2).all()
    assert torch.equal(critic.first(*given), q1)


def test_pixels_are_normalised_to_minus_one_and_one():
    pixels = torch.tensor([0, 255], dtype=torch.uint8)
    assert normalised(pixels).tolist() == [-1.0, 1.0]
