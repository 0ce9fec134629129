"""The graph, and the walk to the frontier, on graphs made by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from gradwatch.diagnose.graph.walk import Graph, operation, root_of
from gradwatch.diagnose.look.site import Sighting
from gradwatch.diagnose.reasons.attenuation import Edge, way_up
from gradwatch.diagnose.reasons.feeding import downstream


class Made:
    """A node as torch's are, made by hand."""

    def __init__(self, name: str, *inputs: Made, variable: object = None) -> None:
        self.name = lambda: name
        self.next_functions = tuple((made, 0) for made in inputs)
        if variable is not None:
            self.variable = variable


def lost(graph: Graph, seen: dict[Made, Sighting], leaf: Made, size: float = 0.0) -> list[Edge]:
    return list(way_up(graph, seen, leaf, size))


@pytest.fixture
def chain() -> tuple[Made, Made, Made, Made]:
    """A parameter below a layer, below an activation, below a loss."""
    leaf = Made("AccumulateGrad", variable=object())
    layer = Made("Addmm", leaf)
    activation = Made("Relu", layer)
    return leaf, layer, activation, Made("Sum", activation)


def test_the_operation_that_turned_it_zero_is_found_and_not_its_layer(
    chain: tuple[Made, Made, Made, Made],
) -> None:
    leaf, layer, activation, loss = chain
    seen = {
        loss: Sighting(1.0, (1.0,)),
        activation: Sighting(1.0, (0.0,)),
        layer: Sighting(0.0, (0.0,)),
    }
    assert lost(Graph([loss]), seen, leaf) == [Edge("operation", activation, 0, 1)]


def test_a_zero_from_the_start(chain: tuple[Made, Made, Made, Made]) -> None:
    leaf, layer, activation, loss = chain
    seen = {node: Sighting(0.0, (0.0,)) for node in (loss, activation, layer)}
    assert lost(Graph([loss]), seen, leaf) == [Edge("root", loss, -1, 3)]


def test_what_a_hook_did_is_on_the_edge(chain: tuple[Made, Made, Made, Made]) -> None:
    leaf, layer, activation, loss = chain
    seen = {
        loss: Sighting(1.0, (1.0,)),
        activation: Sighting(1.0, (1.0,)),
        layer: Sighting(0.0, (0.0,)),
    }
    assert lost(Graph([loss]), seen, leaf) == [Edge("edge", layer, -1, 1)]


def test_a_run_inside_an_operation_goes_on_with_that_operation(chain: tuple[Made, Made, Made, Made]) -> None:
    """As in a reentrant checkpoint, whose inner run starts with the gradient that the outer operation got."""
    leaf, layer, _, _ = chain
    around = Made("CheckpointFunction", Made("AccumulateGrad", variable=object()))
    graph = Graph([Made("Sum", around)])
    graph.adopt(Graph([layer]), around)
    seen = {layer: Sighting(0.0, (0.0,)), around: Sighting(1.0, (1.0,))}
    assert lost(graph, seen, leaf) == [Edge("operation", around, -1, 1)]


def test_operations_that_did_not_run_are_passed_over(chain: tuple[Made, Made, Made, Made]) -> None:
    leaf, layer, _, loss = chain
    assert lost(Graph([loss]), {layer: Sighting(0.0, (0.0,))}, leaf) == []


def test_of_two_paths_the_nearer_one_comes_first() -> None:
    leaf = Made("AccumulateGrad", variable=object())
    near, first = Made("Tanh", leaf), Made("View", leaf)
    far = Made("Relu", first)
    loss = Made("Add", near, far)
    seen = {
        loss: Sighting(1.0, (1.0, 1.0)),
        near: Sighting(1.0, (0.0,)),
        far: Sighting(1.0, (0.0,)),
        first: Sighting(0.0, (0.0,)),
    }
    assert [(edge.node, edge.distance) for edge in lost(Graph([loss]), seen, leaf)] == [(near, 0), (far, 1)]


def test_what_is_merely_small_lost_it_on_the_way_that_brought_most() -> None:
    leaf = Made("AccumulateGrad", variable=object())
    little, most = Made("Tanh", leaf), Made("Mul", leaf)
    loss = Made("Add", little, most)
    seen = {
        loss: Sighting(1.0, (0.1, 1.0)),
        little: Sighting(0.1, (1e-9,)),
        most: Sighting(1.0, (1e-8,)),
    }
    assert lost(Graph([loss]), seen, leaf, 1e-8) == [Edge("operation", most, 0, 0, pytest.approx(8.0))]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_where_it_stopped_to_be_finite(chain: tuple[Made, Made, Made, Made], bad: float) -> None:
    leaf, layer, activation, loss = chain
    seen = {
        loss: Sighting(1.0, (1.0,)),
        activation: Sighting(1.0, (bad,)),
        layer: Sighting(bad, (bad,)),
    }
    assert lost(Graph([loss]), seen, leaf, math.inf) == [Edge("operation", activation, 0, 1)]


def test_finite_contributions_beside_it_do_not_matter() -> None:
    leaf = Made("AccumulateGrad", variable=object())
    good, bad = Made("Tanh", leaf), Made("Sqrt", leaf)
    loss = Made("Add", good, bad)
    seen = {
        loss: Sighting(1.0, (1.0, 1.0)),
        good: Sighting(1.0, (1.0,)),
        bad: Sighting(1.0, (math.inf,)),
    }
    assert lost(Graph([loss]), seen, leaf, math.inf) == [Edge("operation", bad, 0, 0)]


def test_a_graph_deeper_than_pythons_stack() -> None:
    x = parameter = nn.Parameter(torch.ones(1))
    for _ in range(20_000):
        x = x + 1
    graph = Graph([root_of(x)])
    assert len(graph.order) == 20_001
    assert graph.order[0] is graph.leaves[id(parameter)]
    assert sum(1 for _ in graph.above(graph.order[0])) == 20_001


def test_inputs_come_before_what_they_are_used_by() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 1))
    graph = Graph([root_of(net(torch.ones(2, 3)).sum())])
    places = {node: place for place, node in enumerate(graph.order)}
    assert all(places[below] < places[node] for node in graph.order for below, _ in graph.inputs[node] if below)
    assert set(graph.leaves) == {id(parameter) for parameter in net.parameters()}


def test_producers_are_seen_through_reshapes_and_weights_through_transposes() -> None:
    layer = nn.Linear(3, 3)
    hidden = torch.tanh(layer(torch.ones(2, 3)))
    out = (hidden.reshape(6).view(2, 3).t() @ torch.ones(2, 1)).sum()
    graph = Graph([root_of(out)])
    product = next(node for node in graph.order if operation(node) == "Mm")
    made_by = graph.producer(product, 0)
    assert operation(made_by) == "Tanh"
    addmm = next(node for node in graph.order if operation(node) == "Addmm")
    assert graph.weight(addmm, 2) is layer.weight
    assert graph.weight(product, 0) is None


def test_a_leaf_can_be_the_root_itself() -> None:
    parameter = nn.Parameter(torch.ones(()))
    assert Graph([root_of(parameter)]).leaves.keys() == {id(parameter)}


def test_downstream_is_by_meeting_and_not_by_sharing_a_loss() -> None:
    first, second, beside = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)
    x = torch.ones(1, 2)
    loss = second(torch.relu(first(x))).sum() + beside(x).sum()
    modules = {"first": first, "second": second, "beside": beside}
    ids = {name: frozenset(map(id, module.parameters())) for name, module in modules.items()}
    assert downstream(Graph([root_of(loss)]), ids) == {"first": {"second"}}
