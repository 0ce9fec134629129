"""How long the device works for a step: the time inside its kernels, which no idle host can stretch."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from tests.gpu.stages import Found, Settings, Table
from tests.gpu.timing import Way, warm
from tests.gpu.watching import Told, ways
from tests.gpu.workloads import WORKLOADS

COLUMNS = ("workload", "bare us", "bare kernels", "tracked adds us", "kernels", "naive adds us", "kernels")


def busy(settings: Settings, found: Found) -> None:
    """One line for each workload: microseconds and kernels of a step."""
    if settings.device.type != "cuda":
        found.left_out.append("the device's own work: there is no CUDA device")
        return
    table = Table("The device's own work for a step", COLUMNS, [])
    found.tables.append(table)
    for name, make in WORKLOADS.items():
        torch.manual_seed(0)
        loop = make(settings.device, settings.quick)
        worked = {way: work(one) for way, one in ways(loop, settings.quick, Told()).items()}
        found.data[name] = worked
        table.rows.append((name, *row(worked)))


def work(way: Way) -> dict[str, float]:
    """Of one block of steps: microseconds inside kernels, copies and fills, and how many there are, a step."""
    with warm(way) as step:
        torch.cuda.synchronize()
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            for _ in range(way.block):
                step()
            torch.cuda.synchronize()
    return per_step(profiler.events(), way.block)


def per_step(events: Any, steps: int) -> dict[str, float]:
    """Ranges that a program has marked span kernels and are none."""
    ran = [one for one in events if one.device_type == DeviceType.CUDA and not one.is_user_annotation]
    return {"us": sum(one.time_range.elapsed_us() for one in ran) / steps, "kernels": len(ran) / steps}


def row(worked: dict[str, dict[str, float]]) -> tuple[str, ...]:
    """Bare, and what the other ways add."""
    bare = worked["bare"]
    cells = [f"{bare['us']:.1f}", f"{bare['kernels']:.1f}"]
    for way in ("tracked", "naive"):
        cells += [f"{worked[way][key] - bare[key]:.1f}" for key in ("us", "kernels")]
    return tuple(cells)
