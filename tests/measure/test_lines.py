"""Which lines a report has, what every parameter is called, and which modules own them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from gradwatch.measure.lines import Lines
from gradwatch.paths import owner_of

# Torch's compiler warns of parts of torch while it is imported.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def linear() -> nn.Linear:
    return nn.Linear(2, 2, bias=False)


class Body(nn.Module):
    """Parts, and what it does with them."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        for part in self.children():
            x = part(x)
        return x


class Owning(Body):
    def __init__(self, **parts: nn.Module) -> None:
        super().__init__(**parts)
        self.gain = nn.Parameter(torch.ones(2))


class Collection(nn.Module):
    """No forward of its own, and a parameter beside its parts."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))
        self.one, self.two = linear(), linear()


def lines_of(modules: Any, depth: int | None = None) -> list[str]:
    return list(Lines(modules, depth).lines)


def names_of(modules: Any, depth: int | None = None) -> list[str]:
    return list(Lines(modules, depth).names.values())


def stacked(count: int) -> nn.ModuleList:
    return nn.ModuleList(Body(fc=linear(), out=linear()) for _ in range(count))


# Lone modules.


def test_the_children_that_have_parameters() -> None:
    model = Body(first=nn.Linear(2, 2), act=nn.Tanh(), second=linear())
    made = Lines(model)
    assert list(made.lines) == ["first", "second"]
    assert list(made.names.values()) == ["first.weight", "first.bias", "second.weight"]
    assert made.lines["first"] == [model.first.weight, model.first.bias]


def test_what_it_owns_itself() -> None:
    model = Owning(inner=linear())
    made = Lines(model)
    assert list(made.lines) == list(made.owners) == ["(root)", "inner"]
    assert made.lines["(root)"] == [model.gain]
    assert list(made.names.values()) == ["gain", "inner.weight"]


def test_a_module_without_parts() -> None:
    made = Lines(nn.Linear(2, 2))
    assert list(made.lines) == list(made.owners) == ["(root)"]
    assert list(made.names.values()) == ["weight", "bias"]


@pytest.mark.parametrize(
    "held",
    [
        nn.ModuleList([linear(), linear()]),
        nn.ModuleDict({"0": linear(), "1": linear()}),
        nn.Sequential(linear(), linear()),
    ],
)
def test_what_only_holds_others_is_opened(held: nn.Module) -> None:
    assert lines_of(Body(body=held, head=linear())) == ["body.0", "body.1", "head"]


def test_what_has_a_forward_of_its_own_is_not() -> None:
    class Residual(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return x + super().forward(x)

    parts = {
        "plain": nn.Sequential(linear(), linear()),
        "own": Residual(linear(), linear()),
        "body": Body(a=linear()),
    }
    assert lines_of(Body(**parts)) == ["plain.0", "plain.1", "own", "body"]


def test_a_collection_that_owns_a_parameter_goes_by_its_own_name() -> None:
    model = Body(parts=Collection(), head=linear())
    made = Lines(model)
    assert list(made.lines) == ["parts", "parts.one", "parts.two", "head"]
    assert made.lines["parts"] == made.owners["parts"] == [model.parts.scale]


def test_a_lone_body_is_opened_though_the_head_is_tied_to_it() -> None:
    """As GPT-2's ``transformer``."""
    model = Body(
        transformer=Body(wte=nn.Embedding(4, 2), h=stacked(2), ln_f=nn.LayerNorm(2)),
        lm_head=nn.Linear(2, 4, bias=False),
    )
    told = [f"transformer.{name}" for name in ("wte", "h.0", "h.1", "ln_f")]
    assert lines_of(model) == ["transformer", "lm_head"]
    model.lm_head.weight = model.transformer.wte.weight
    made = Lines(model)
    assert list(made.lines) == [*told, "lm_head"]
    assert made.lines["lm_head"] == made.lines["transformer.wte"]
    assert "lm_head.weight" not in made.names.values()
    assert {"transformer.wte", "transformer.h.1.fc", "lm_head"} <= set(made.owners)


def test_bodies_within_bodies() -> None:
    assert lines_of(Body(outer=Body(inner=Body(a=linear(), b=linear())))) == ["outer.inner.a", "outer.inner.b"]


@pytest.mark.parametrize(("blocks", "opened"), [(39, True), (40, False)])
def test_at_most_forty_lines(blocks: int, opened: bool) -> None:
    made = lines_of(Body(h=stacked(blocks), head=linear()))
    assert len(made) == (40 if opened else 2)


def test_the_lines_that_there_are_do_not_become_fewer() -> None:
    assert len(lines_of(stacked(50))) == 50


@pytest.mark.parametrize("order", [["deep", "wide"], ["wide", "deep"]])
def test_level_by_level_and_each_as_a_whole(order: list[str]) -> None:
    deep = nn.Sequential(nn.Sequential(*[linear() for _ in range(36)]), linear())
    parts = {"deep": deep, "wide": nn.Sequential(*[linear() for _ in range(37)])}
    # These two opened make 40: there is no room any more for what is in deep.
    told = {"deep": ["deep.0", "deep.1"], "wide": [f"wide.{i}" for i in range(37)]}
    model = Body(**{name: parts[name] for name in order}, head=linear())
    assert lines_of(model) == [*told[order[0]], *told[order[1]], "head"]


def test_one_module_under_two_names_is_one_line() -> None:
    shared = linear()
    assert lines_of(nn.Sequential(shared, nn.Tanh(), shared)) == ["0"]
    one, two = Body(inner=shared, more=linear()), Body(inner=shared, other=linear())
    made = Lines(Body(one=one, two=two))
    assert made.lines["one"][0] is made.lines["two"][0] is shared.weight
    assert made.owners["one.inner"] == made.owners["two.inner"] == [shared.weight]
    assert made.names[id(shared.weight)] == "one.inner.weight"


def test_a_module_that_knows_what_it_is_in() -> None:
    """Torch cannot move such a model, but a loop may train it."""
    model = Body(inner=linear())
    model.inner.add_module("above", model)
    assert names_of(model) == ["inner.weight"]


# Depth.


@pytest.mark.parametrize(
    ("depth", "told"),
    [
        (1, ["(root)", "body", "head"]),
        (2, ["(root)", "body", "body.h", "body.norm", "head"]),
        (3, ["(root)", "body", "body.h.0", "body.h.1", "body.norm", "head"]),
        (4, ["(root)", "body", "body.h.0.fc", "body.h.0.out", "body.h.1.fc", "body.h.1.out", "body.norm", "head"]),
    ],
)
def test_depth(depth: int, told: list[str]) -> None:
    model = Owning(body=Owning(h=stacked(2), norm=nn.LayerNorm(2)), head=linear())
    assert lines_of(model, depth) == told
    assert names_of(model, depth) == [name for name, _ in model.named_parameters()]


def test_depth_beyond_the_last_leaf() -> None:
    model = Body(body=Body(h=stacked(2)))
    assert lines_of(model, 10**12) == lines_of(model, 4)


def test_depth_asks_for_no_limit() -> None:
    assert len(lines_of(Body(h=stacked(60)), 3)) == 120


# Several modules by name.


def test_each_entry_is_a_line() -> None:
    actor, critic = nn.Sequential(nn.Sequential(linear(), linear())), Owning(inner=linear())
    made = Lines({"actor": actor, "critic": critic, "nothing": nn.Tanh()})
    assert list(made.lines) == ["actor", "critic"]
    assert list(made.owners) == ["actor.0.0", "actor.0.1", "critic", "critic.inner"]
    assert list(made.names.values()) == [
        "actor.0.0.weight",
        "actor.0.1.weight",
        "critic.gain",
        "critic.inner.weight",
    ]
    assert made.lines["critic"] == [critic.gain, critic.inner.weight]


@pytest.mark.parametrize(
    ("depth", "told"),
    [
        (1, ["actor", "critic"]),
        (2, ["actor.net", "critic", "critic.inner"]),
        (3, ["actor.net.0", "actor.net.1", "critic", "critic.inner"]),
    ],
)
def test_depth_of_several(depth: int, told: list[str]) -> None:
    actor, critic = Body(net=nn.Sequential(linear(), linear())), Owning(inner=linear())
    assert lines_of({"actor": actor, "critic": critic}, depth) == told


def test_modules_may_overlap() -> None:
    outer = Body(inner=linear(), more=linear())
    made = Lines({"outer": outer, "inner": outer.inner, "outer.inner": outer.inner})
    assert made.lines["outer"] == [outer.inner.weight, outer.more.weight]
    assert made.lines["inner"] == made.lines["outer.inner"] == made.owners["outer.inner"] == [outer.inner.weight]
    assert made.names[id(outer.inner.weight)] == "outer.inner.weight"


def test_no_modules() -> None:
    made = Lines(None)
    assert (made.names, made.lines, made.owners, made.module_of("group0")) == ({}, {}, {}, None)


# Wrappers.


def averaged(module: nn.Module) -> nn.Module:
    return AveragedModel(module)


def checkpointed(module: nn.Module) -> nn.Module:
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    return checkpoint_wrapper(module)


def compiled(module: nn.Module) -> nn.Module:
    return torch.compile(module)  # type: ignore[return-value]  # compiles nothing before its first call


class MyDataParallel(nn.DataParallel):
    """What people derive to reach the attributes of what is inside."""


def twice(module: nn.Module) -> nn.Module:
    return AveragedModel(nn.DataParallel(module))


WRAPPERS = [averaged, checkpointed, compiled, nn.DataParallel, MyDataParallel, twice]
PLAIN = ["body.h.0.fc.weight", "body.h.0.out.weight", "body.h.1.fc.weight", "body.h.1.out.weight", "head.weight"]


@pytest.fixture
def model() -> Body:
    return Body(body=Body(h=stacked(2)), head=linear())


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_a_wrapped_model_is_told_as_it_is(model: Body, wrap: Any) -> None:
    plain, seen = Lines(model), Lines(wrap(model))
    assert list(seen.names.values()) == list(plain.names.values()) == PLAIN
    assert list(seen.lines) == list(plain.lines) == ["body", "head"]
    assert list(seen.owners) == list(plain.owners)
    assert names_of({"net": wrap(model)}) == [f"net.{name}" for name in PLAIN]


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_and_so_it_is_with_a_part_of_it(model: Body, wrap: Any) -> None:
    model.body = wrap(model.body)
    inner = model.body.get_submodule(
        next(n for n, m in model.body.named_modules() if isinstance(m, nn.ModuleList))
    )
    inner[1] = wrap(inner[1])
    seen = Lines(model)
    assert list(seen.names.values()) == PLAIN
    assert list(seen.lines) == ["body", "head"]
    assert lines_of(model, 3) == ["body.h.0", "body.h.1", "head"]
    assert type(seen.module_of("body.h.1")) is Body
    assert type(seen.module_of("body.h.1.out")) is nn.Linear


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_a_wrapped_container_is_opened(wrap: Any) -> None:
    model = Body(body=wrap(nn.Sequential(linear(), wrap(linear()))), head=linear())
    assert lines_of(model) == ["body.0", "body.1", "head"]


def test_a_child_that_is_called_module_is_none(model: Body) -> None:
    assert lines_of(Body(module=model.body, _orig_mod=model.head)) == ["module", "_orig_mod"]


def test_what_a_wrapper_owns_is_its_modules() -> None:
    wrapper = nn.DataParallel(Body(inner=linear()))
    wrapper.temperature = nn.Parameter(torch.ones(1))
    wrapper.more = linear()
    assert lines_of(wrapper) == ["(root)", "more", "inner"]
    assert names_of({"net": wrapper}) == ["net.temperature", "net.inner.weight", "net.more.weight"]


# Reading anew, and what has a path.


def test_read_anew() -> None:
    model = Body(body=linear(), head=linear())
    made = Lines(model)
    old, model.body = model.body, nn.Sequential(linear(), linear())
    assert id(old.weight) in made.names
    made.renew()
    assert list(made.lines) == ["body.0", "body.1", "head"]
    assert id(old.weight) not in made.names


def test_the_module_behind_a_path() -> None:
    model = Owning(body=Body(h=stacked(2)), head=linear())
    made = Lines(model)
    assert made.module_of("(root)") is model
    assert made.module_of("body") is model.body
    assert made.module_of("body.h.1.fc") is model.body.h[1].fc
    assert made.module_of("body.h.2") is made.module_of("nothing") is made.module_of("head.weight") is None
    several = Lines({"net": model.body, "net.a": model, "ne": model.head})
    assert several.module_of("net") is model.body
    assert several.module_of("net.h.0.out") is model.body.h[0].out
    assert several.module_of("net.a.head") is several.module_of("ne") is model.head
    assert several.module_of("h.0") is several.module_of("(root)") is None


def test_what_is_not_made_yet() -> None:
    model = nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.LazyLinear(2))
    made = Lines(model)
    assert list(made.lines) == ["0", "2"]
    assert list(made.names.values()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    model(torch.ones(1, 3))
    made.renew()
    assert made.lines["0"] == [model[0].weight, model[0].bias]


def test_weights_in_another_form() -> None:
    model = Body(layer=nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)), head=linear())
    made = Lines(model)
    assert list(made.lines) == ["layer", "head"]
    assert {path: len(owned) for path, owned in made.owners.items()} == {"layer": 3, "head": 1}
    parts = {"bias", "parametrizations.weight.original0", "parametrizations.weight.original1"}
    assert set(made.names.values()) == {"head.weight", *(f"layer.{part}" for part in parts)}
    assert all(owner_of(name) in made.owners for name in made.names.values())


def test_a_lone_module_whose_weight_has_another_form() -> None:
    made = Lines(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)))
    assert list(made.lines) == list(made.owners) == ["(root)"]
    assert {owner_of(name) for name in made.names.values()} == {"(root)"}


class LowRank(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.A, self.B = nn.Parameter(torch.ones(2, 1)), nn.Parameter(torch.zeros(1, 2))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.A @ self.B


def test_what_a_parametrization_learns_by_itself_is_its_own() -> None:
    layer = linear()
    nn.utils.parametrize.register_parametrization(layer, "weight", LowRank())
    made = Lines(Body(layer=layer))
    assert list(made.owners) == ["layer", "layer.parametrizations.weight.0"]
    assert {owner_of(name) for name in made.names.values()} == set(made.owners)


def test_a_scripted_module() -> None:
    scripted = torch.jit.script(nn.Sequential(linear(), nn.Sequential(linear(), linear())))
    assert names_of(scripted) == ["0.weight", "1.0.weight", "1.1.weight"]
    assert names_of(Body(inner=scripted, head=linear()))[-1] == "head.weight"
