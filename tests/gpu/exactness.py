"""Norms of gradients on the device against float64 on the host, in units of float32's last place."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

import gradwatch
from tests.gpu.stages import Found, Settings, Table

LIMIT = 1e-4
SIZES = (10, 1_000, 65_537, 1_000_000, 10_000_000)
QUICK_SIZES = (10, 1_000, 65_537)
EXACTLY_SUMMED = 1_000_000
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
# The smallest normal number of each type; what is below is subnormal.
KINDS = ("normal", "0.1", "1e20", "1e-23", "subnormal")

Norms = Callable[[list[Tensor]], list[float]]


def tracked_norms(gradients: list[Tensor]) -> list[float]:
    """What a record says of each gradient."""
    weights = [nn.Parameter(torch.empty_like(gradient)) for gradient in gradients]
    optimizer = torch.optim.SGD(weights, lr=0.0)
    with gradwatch.track(optimizer) as watch:
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient
        optimizer.step()
    return [norms.norm_before for norms in watch.history[0].parameters.values()]


def global_norms(gradients: list[Tensor]) -> list[float]:
    """What the function says of each."""
    return [gradwatch.global_norm([gradient]).item() for gradient in gradients]


WAYS: dict[str, Norms] = {"record": tracked_norms, "global_norm": global_norms}


def exactness(settings: Settings, found: Found, ways: dict[str, Norms] = WAYS) -> None:
    """The worst case of each type and each way to ask."""
    table = Table(
        "Exactness, float32 ulp", ("type", "asked of", "cases", "worst", "where", f"at most {LIMIT:g}"), []
    )
    found.tables.append(table)
    sizes = QUICK_SIZES if settings.quick else SIZES
    for dtype in DTYPES:
        cases = dict(made(dtype, sizes, settings.device))
        expected = [host_norm(gradient) for gradient in cases.values()]
        for way, norms in ways.items():
            errors = {
                case: ulps(norm, reference)
                for case, norm, reference in zip(cases, norms(list(cases.values())), expected, strict=True)
            }
            note(str(dtype).removeprefix("torch."), way, errors, table, found)


def note(dtype: str, way: str, errors: dict[str, float], table: Table, found: Found) -> None:
    """Write down one line, and a failure where it is one."""
    case, worst = max(errors.items(), key=lambda item: item[1])
    passed = worst <= LIMIT
    table.rows.append((dtype, way, str(len(errors)), f"{worst:.2g}", case, "pass" if passed else "FAIL"))
    found.data[f"{dtype}, {way}"] = errors
    if not passed:
        found.failures.append(f"exactness: {dtype}, {way}, {case}: off by {worst:.3g} float32 ulp")


def made(dtype: torch.dtype, sizes: tuple[int, ...], device: torch.device) -> Iterator[tuple[str, Tensor]]:
    """Gradients of each size and kind that the type can hold, on the device, by name."""
    dice = torch.Generator().manual_seed(9)
    for size in sizes:
        noise = torch.randn(size, generator=dice, dtype=torch.float64)
        for kind in KINDS:
            gradient = _values(kind, noise, dtype).to(dtype)
            if torch.isfinite(gradient).all() and (gradient != 0).any():
                yield f"{kind} x {size:,}", gradient.to(device)


def _values(kind: str, noise: Tensor, dtype: torch.dtype) -> Tensor:
    if kind == "normal":
        return noise
    if kind == "0.1":
        return torch.full_like(noise, 0.1)
    if kind == "subnormal":
        # Squares of float64 would vanish there: it stands for itself at the foot of float32's range.
        lowest = min(dtype, torch.float32, key=lambda one: -torch.finfo(one).tiny)
        return noise.clamp(-3, 3) / 4 * torch.finfo(lowest).tiny
    return noise * float(kind)


def host_norm(gradient: Tensor) -> float:
    """The reference: scaled by a power of two, which rounds nothing, so that no square is out of range."""
    values = gradient.cpu().double().numpy()
    exponent = int(np.frexp(np.abs(values).max())[1])
    squares = np.square(np.ldexp(values, -exponent))
    total = math.fsum(squares.tolist()) if len(squares) <= EXACTLY_SUMMED else float(squares.sum())
    return math.ldexp(math.sqrt(total), exponent)


def ulps(norm: float, reference: float) -> float:
    """The error in units of the last place of float32 at the reference, as if its range had no end."""
    unit = math.ldexp(1.0, math.frexp(reference)[1] - 24)
    error = abs(norm - reference) / unit
    return error if math.isfinite(error) else math.inf
