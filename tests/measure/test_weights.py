"""Weights are told to have changed by their versions."""

import torch
from torch import nn

from gradwatch.measure.weights import Weights


def test_weights_have_changed_when_one_was_written_to_or_one_more_is_held() -> None:
    parameters = [nn.Parameter(torch.ones(2)) for _ in range(2)]
    weights = Weights()
    assert weights.noted == 0
    weights.note(parameters, now=3)
    assert (weights.noted, weights.have_changed(parameters)) == (3, False)
    assert weights.have_changed([*parameters, parameters[0]])
    with torch.no_grad():
        parameters[1].add_(1.0)
    assert weights.have_changed(parameters)
    weights.note(parameters, now=4)
    assert not weights.have_changed(parameters)
