"""What is asked at each event of an optimizer is read in one load."""

import torch
from torch import nn

import gradwatch

# From so many attributes on, Python keeps those of an object in a dictionary (3.11 to 3.13), which is one more
# place in memory for each that is read.
IN_A_DICTIONARY = 30


def test_a_tracked_optimizer_has_no_more_attributes_than_python_keeps_with_the_object() -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradwatch.track(optimizer, model) as watch:
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        assert all(len(vars(one)) < IN_A_DICTIONARY for one in watch._observer.tracked.values())
