"""Shares of sums, on many ranks played one after the other in one process."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.testing._internal.distributed.fake_pg import FakeStore

from gradwatch.measure.sharding.parts import on_this_rank, version_of, whole_number
from gradwatch.measure.sharding.shards import Shards

WORLD = 8


def parts(shards: Shards, *parameters: nn.Parameter) -> list[Any]:
    """This rank's part of each gradient."""
    return shards.parts(parameters, [parameter.grad for parameter in parameters])


def each_rank() -> Iterator[int]:
    for rank in range(WORLD):
        dist.init_process_group("fake", rank=rank, world_size=WORLD, store=FakeStore())
        try:
            yield rank
        finally:
            dist.destroy_process_group()


def laid_out(mesh: DeviceMesh, *placements: Any, shape: tuple[int, ...] = (8, 5)) -> nn.Parameter:
    """A parameter whose gradient is its values, cut out of the whole without communication."""
    whole = torch.arange(1.0, 1.0 + math.prod(shape)).reshape(shape)
    spread = DTensor.from_local(whole, mesh, [Replicate()] * mesh.ndim, run_check=False)
    parameter = nn.Parameter(spread.redistribute(placements=placements))
    parameter.grad = parameter.detach().clone()
    return parameter


def mesh_of(*sizes: int) -> DeviceMesh:
    return init_device_mesh("cpu", sizes, mesh_dim_names=("a", "b", "c")[: len(sizes)])


def on_one_dimension() -> list[nn.Parameter]:
    return [laid_out(mesh_of(8), Shard(0)), laid_out(mesh_of(8), Shard(1)), laid_out(mesh_of(8), Replicate())]


def on_two_dimensions() -> list[nn.Parameter]:
    mesh = mesh_of(2, 4)
    return [
        laid_out(mesh, Shard(0), Shard(1)),
        laid_out(mesh, Shard(0), Replicate()),
        laid_out(mesh, Replicate(), Shard(0)),
        laid_out(mesh["a"], Shard(0)),
        nn.Parameter(torch.ones(3)),
    ]


def on_meshes_that_cross() -> list[nn.Parameter]:
    mesh = mesh_of(2, 4)
    return [laid_out(mesh["a"], Shard(0)), laid_out(mesh["b"], Shard(0))]


def unequal_parts() -> list[nn.Parameter]:
    return [laid_out(mesh_of(2, 2, 2), Shard(0), Replicate(), Shard(0), shape=(3, 2))]


@pytest.mark.parametrize("made", [on_one_dimension, on_two_dimensions, on_meshes_that_cross, unequal_parts])
def test_weighted_squares_add_up_to_those_of_the_whole(made: Callable[[], list[nn.Parameter]]) -> None:
    sums: dict[tuple[int, ...], dict[int, float]] = {}
    wholes: dict[int, float] = {}
    for rank in each_rank():
        parameters = made()
        shards = Shards(parameters)
        assert rank in shards.ranks
        added = sums.setdefault(shards.ranks, {})
        for place, (parameter, part) in enumerate(zip(parameters, parts(shards, *parameters), strict=True)):
            share = shards.share_of(parameter)
            if share is not None:
                added[place] = added.get(place, 0.0) + share * float(part.double().square().sum())
                wholes[place] = float(sum(n * n for n in range(1, parameter.numel() + 1)))
    assert wholes
    for added in sums.values():
        assert added == pytest.approx(wholes)


def test_sums_are_formed_over_one_copy_only() -> None:
    groups = []
    for _ in each_rank():
        groups.append(Shards([laid_out(mesh_of(2, 4), Replicate(), Shard(0))]).ranks)
    assert groups == [(0, 1, 2, 3)] * 4 + [(4, 5, 6, 7)] * 4


def test_a_plain_tensor_is_whole() -> None:
    shards = Shards([nn.Parameter(torch.ones(2))])
    assert shards.ranks == (0,)
    assert not shards.divided
    assert shards.share_of(nn.Parameter(torch.ones(2))) is None


@pytest.fixture
def rank_0() -> Iterator[int]:
    ranks = each_rank()
    yield next(ranks)
    ranks.close()


@pytest.mark.usefixtures("rank_0")
def test_replicas_are_whole_but_their_gradients_may_be_sums_of_all() -> None:
    shards = Shards([laid_out(mesh_of(8), Replicate())])
    assert shards.ranks == tuple(range(8))
    assert not shards.divided


@pytest.mark.usefixtures("rank_0")
def test_a_whole_gradient_of_a_parameter_in_parts_is_cut() -> None:
    parameter = laid_out(mesh_of(8), Shard(0))
    parameter.grad = laid_out(mesh_of(8), Replicate()).detach()
    (part,) = parts(Shards([parameter]), parameter)
    assert torch.equal(part, parameter.to_local())


@pytest.mark.usefixtures("rank_0")
def test_without_the_others_a_partial_gradient_is_left_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    parameter = laid_out(mesh_of(8), Replicate())
    summand = torch.ones(8, 5)
    parameter.grad = DTensor.from_local(summand, mesh_of(8), [Partial()], run_check=False)
    shards = Shards([parameter])
    for _ in range(2):
        assert torch.equal(parts(shards, parameter)[0], summand)
    assert [record.message for record in caplog.records if "summand" in record.message] == [
        "gradwatch measures only this rank's summand of a partial gradient, since not all ranks of its mesh track "
        "it: the norms of such parameters are not those of the whole."
    ]


@pytest.mark.usefixtures("rank_0")
def test_of_one_rank_alone_the_summand_is_the_whole(caplog: pytest.LogCaptureFixture) -> None:
    alone = DeviceMesh("cpu", [0])
    parameter = laid_out(alone, Replicate())
    summand = torch.ones(8, 5)
    parameter.grad = DTensor.from_local(summand, alone, [Partial()], run_check=False)
    assert torch.equal(parts(Shards([parameter]), parameter)[0], summand)
    assert caplog.records == []


@pytest.mark.usefixtures("rank_0")
def test_the_same_parameters_have_the_same_signature() -> None:
    def signature(*placements: Any) -> str:
        return Shards([laid_out(mesh_of(2, 4), *placements)]).signature

    assert signature(Shard(0), Shard(1)) == signature(Shard(0), Shard(1))
    assert signature(Shard(0), Shard(1)) != signature(Shard(1), Shard(0))


@pytest.mark.usefixtures("rank_0")
def test_a_change_of_the_part_is_a_change_of_the_gradient() -> None:
    gradient = laid_out(mesh_of(8), Shard(0)).grad
    versions = [version_of(gradient)]
    on_this_rank(gradient).mul_(2)
    versions.append(version_of(gradient))
    gradient.mul_(2)
    versions.append(version_of(gradient))
    assert versions == sorted(set(versions))


@pytest.mark.usefixtures("rank_0")
def test_a_number_of_which_a_rank_has_only_a_part_is_none() -> None:
    number = torch.tensor(2.0)
    mesh = mesh_of(8)
    assert whole_number(number) is number
    assert torch.equal(whole_number(DTensor.from_local(number, mesh, [Replicate()], run_check=False)), number)
    assert whole_number(DTensor.from_local(number, mesh, [Partial()], run_check=False)) is None
