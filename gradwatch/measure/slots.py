"""Whose norm it is: parameters in slots, and what each optimizer holds of them.

A parameter has one slot in a tracker, however many optimizers and modules share it, so that its gradient is
measured once. A ``Holding`` is one optimizer's selection of slots, with the names they are reported under.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gradwatch.measure.shards import Shards

__all__ = ["Holding", "ModuleNames", "Slots", "parameters_of"]


class ModuleNames:
    """The report's lines: which parameters each named module owns, and what every parameter is called.

    Args:
        modules: a lone module reports on its direct children and on ``"(root)"``; a mapping on its entries.
    """

    ROOT = "(root)"

    def __init__(self, modules: nn.Module | Mapping[str, nn.Module] | None) -> None:
        self._modules = modules
        self.renew()

    def renew(self) -> None:
        """Read the modules anew: a part of them may have been replaced."""
        self.owned: dict[str, list[Tensor]] = {}
        self.parameter_names: dict[int, str] = {}
        modules = self._modules
        if isinstance(modules, nn.Module):
            self._name(modules.named_parameters())
            self.owned = {name: list(child.parameters()) for name, child in modules.named_children()}
            self.owned[self.ROOT] = list(modules.parameters(recurse=False))
        else:
            for entry, module in (modules or {}).items():
                self._name((f"{entry}.{name}", p) for name, p in module.named_parameters())
                self.owned[entry] = list(module.parameters())

    def left_out_by(self, slots: Slots) -> dict[str, list[tuple[str, Tensor]]]:
        """By module, the name and the tensor of each of its parameters that has no slot."""
        left_out = {}
        for module, parameters in self.owned.items():
            unheld = [(self.parameter_names[id(p)], p) for p in parameters if not slots.of([p])]
            if unheld:
                left_out[module] = unheld
        return left_out

    def _name(self, named: Iterable[tuple[str, Tensor]]) -> None:
        # The first name wins where modules share a parameter.
        for name, parameter in named:
            self.parameter_names.setdefault(id(parameter), name)


class Slots:
    """One number for each parameter of a tracker; it grows when an optimizer is given more parameters.

    Args:
        shards: how these parameters lie on the ranks.
    """

    def __init__(self, shards: Shards | None = None) -> None:
        self.shards = Shards() if shards is None else shards
        self._parameters: list[Tensor | None] = []
        self._of: dict[int, int] = {}
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self._parameters)

    def parameter(self, slot: int) -> Tensor:
        """The parameter in a slot that is in use."""
        return cast("Tensor", self._parameters[slot])

    def held(self, selection: Iterable[int]) -> list[Tensor]:
        """The parameters in these slots, which are in use."""
        parameters = cast("list[Tensor]", self._parameters)
        return [parameters[slot] for slot in selection]

    def gradients(self, selection: Iterable[int]) -> list[Tensor | None]:
        """What this rank has of the gradient in each of these slots; None where there is none."""
        return self.shards.gradients(self.held(selection))

    def add(self, parameter: Tensor) -> int:
        """The slot of a parameter, one of its own if it has none."""
        slot = self._of.get(id(parameter))
        if slot is None:
            if not self._free:
                self._free.append(len(self._parameters))
                self._parameters.append(None)
            slot = self._of[id(parameter)] = self._free.pop()
            self._parameters[slot] = parameter
        return slot

    def of(self, parameters: Iterable[Tensor]) -> tuple[int, ...]:
        """The slots of those parameters that have one, each once, in order."""
        found = dict.fromkeys(map(self._of.get, map(id, parameters)))
        found.pop(None, None)
        return tuple(slot for slot in found if slot is not None)

    def repeated(self, parameters: Iterable[Tensor]) -> tuple[int, ...]:
        """The slots of those parameters that are given more than once."""
        times = Counter(map(id, parameters))
        return tuple(self._of[one] for one, count in times.items() if count > 1 and one in self._of)

    def release(self, kept: Iterable[int]) -> tuple[int, ...]:
        """Let go of every parameter but those in these slots; what was let go."""
        left = set(self._of.values()) - set(kept)
        for slot in left:
            parameter = self.parameter(slot)
            self.shards.forget(parameter)
            del self._of[id(parameter)]
            self._parameters[slot] = None
        self._free.extend(left)
        return tuple(left)


class Holding:
    """The parameters that one optimizer holds, and the lines of its report.

    Attributes:
        slots: slot of each distinct parameter, in the optimizer's order; a row of the record has this order.
        parameters: the parameters themselves.
        names: their names.
        rounding: machine epsilon of each parameter's type.
        places: name -> index into the row.
        modules: module name -> indices into the row.
        sharded: indices of those of which this rank holds a part only.
        shares: for each of these, the weight of this rank's squares in the sum over ranks.
    """

    def __init__(self, optimizer: Optimizer, slots: Slots, names: ModuleNames) -> None:
        self.signature = parameter_ids(optimizer)
        self.slots: tuple[int, ...] = ()
        labels: dict[int, str] = {}
        for g, group in enumerate(optimizer.param_groups):
            for i, parameter in enumerate(group["params"]):
                slot = slots.add(parameter)
                labels.setdefault(slot, names.parameter_names.get(id(parameter), f"group{g}.param{i}"))
        self.slots = tuple(labels)
        self.parameters = slots.held(self.slots)
        self.slot_array = np.array(self.slots, dtype=np.intp)
        self.names = tuple(labels.values())
        self.places = {name: place for place, name in enumerate(self.names)}
        self.rounding = np.array([_epsilon(parameter) for parameter in self.parameters])
        self.place_of_slot = {slot: place for place, slot in enumerate(self.slots)}
        self.modules = _module_places(names.owned, slots, self.place_of_slot)
        shares = [slots.shards.share_of(parameter) for parameter in self.parameters]
        self.sharded = np.array([place for place, share in enumerate(shares) if share is not None], dtype=np.intp)
        self.shares = np.array([share for share in shares if share is not None])
        # All modules' places one after another, and where each module begins: for one reduction over all.
        sizes = [len(places) for places in self.modules.values()]
        self.module_index = np.concatenate([*self.modules.values(), np.zeros(0, dtype=np.intp)])
        self.module_starts = np.cumsum([0, *sizes[:-1]])

    def places_of(self, slots: Iterable[int]) -> npt.NDArray[np.intp]:
        """The row indices of those slots that this optimizer holds."""
        found = [self.place_of_slot[slot] for slot in slots if slot in self.place_of_slot]
        return np.array(found, dtype=np.intp)


def _epsilon(parameter: Tensor) -> float:
    """The relative distance between neighbouring numbers of its type."""
    of_floats = parameter.is_floating_point() or parameter.is_complex()
    return float(torch.finfo(parameter.dtype).eps) if of_floats else 0.0


def parameters_of(optimizer: Optimizer) -> list[Tensor]:
    """What the optimizer holds, in its order."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def parameter_ids(optimizer: Optimizer) -> list[int]:
    """What the optimizer holds now, cheap to compare with what it held at the last step."""
    return [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]


def _module_places(
    owned: Mapping[str, Sequence[Tensor]], slots: Slots, place_of_slot: Mapping[int, int]
) -> dict[str, npt.NDArray[np.intp]]:
    modules = {}
    for name, parameters in owned.items():
        places = [place_of_slot[slot] for slot in slots.of(parameters) if slot in place_of_slot]
        if places:
            modules[name] = np.array(places, dtype=np.intp)
    return modules
