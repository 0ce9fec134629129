"""The newest norm of every slot, and when it was taken.

``Meter`` turns "measure these slots now" into numbers. Plans are kept by the slots they are for: a training
loop asks for the same few selections again and again.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gradwatch.measure.norms import FloatArray, HostPlan, Scratch, exact_norms
from gradwatch.measure.slots import Slots

__all__ = ["Meter"]

BoolArray = npt.NDArray[np.bool_]


class Meter:
    """Measures the gradients of slots.

    Gradients on an accelerator, sparse or complex ones take the general way, which reads their norms to the
    host once for each selection measured. That read waits for the device.
    """

    # Selections differ by which gradients are there; a loop that never repeats one must not fill memory.
    MOST_PLANS = 64

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._scratch = Scratch()
        self._plans: dict[tuple[int, ...], HostPlan | None] = {}

    def measure(self, selection: tuple[int, ...]) -> tuple[FloatArray, BoolArray]:
        """The L2 norm of the gradient in each slot, and whether there is one; 0.0 where there is none."""
        parameters = self._slots.parameters
        gradients = [parameters[slot].grad for slot in selection]
        present = np.array([gradient is not None for gradient in gradients], dtype=bool)
        if present.all():
            return self._norms(selection, cast("list[Tensor]", gradients)), present
        norms = np.zeros(len(selection))
        there = [g for g in gradients if g is not None]
        if there:
            held = tuple(slot for slot, g in zip(selection, gradients, strict=True) if g is not None)
            norms[present] = self._norms(held, there)
        return norms, present

    def _norms(self, selection: tuple[int, ...], gradients: list[Tensor]) -> FloatArray:
        with torch.no_grad():
            if selection not in self._plans:
                self._make_plan(selection, gradients)
            plan = self._plans[selection]
            if plan is not None:
                try:
                    return plan.norms(gradients)
                except RuntimeError:
                    # A gradient changed its form since the plan was made: plan anew at the next step.
                    del self._plans[selection]
            norms = exact_norms(gradients)
            return np.array([float(norm) for norm in norms])

    def _make_plan(self, selection: tuple[int, ...], gradients: list[Tensor]) -> None:
        if len(self._plans) >= self.MOST_PLANS:
            self._plans.clear()
        plain = all(_is_plain(gradient) for gradient in gradients)
        self._plans[selection] = HostPlan(gradients, self._scratch) if plain else None


def _is_plain(gradient: Tensor) -> bool:
    return gradient.device.type == "cpu" and gradient.layout == torch.strided and not gradient.is_complex()
