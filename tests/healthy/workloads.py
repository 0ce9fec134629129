"""The four trainings, and others of their kind in the settings that users give them."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch

from tests.healthy.agents import ppo, sac, td3
from tests.healthy.language import gpt
from tests.healthy.run import Workload
from tests.healthy.vision import resnet

__all__ = ["VARIANTS", "WORKLOADS"]

PENDULUM: dict[str, Any] = {"environment": "Pendulum-v1", "gamma": 0.9, "learning_rate": 1e-3}

# 22,620 optimizer steps.
WORKLOADS = [
    Workload("td3", 7500, td3, "return"),
    Workload("ppo", 5120, ppo, "return"),
    Workload("gpt", 5000, gpt, "loss"),
    Workload("resnet", 5000, resnet, "loss"),
]

VARIANTS = [
    Workload("td3-delay-1", 10_000, partial(td3, policy_delay=1), "return"),
    Workload("td3-delay-4", 12_500, partial(td3, policy_delay=4), "return"),
    Workload("td3-rate-3e-3", 6000, partial(td3, rate=3e-3), "return"),
    Workload("sac", 7500, sac, "return"),
    Workload("ppo-target-kl", 2560, partial(ppo, target_kl=0.01), "return"),
    Workload("ppo-unclipped", 2560, partial(ppo, max_grad_norm=math.inf), "return"),
    Workload("ppo-pendulum", 6400, partial(ppo, **PENDULUM), "return"),
    Workload("ppo-pendulum-128", 3840, partial(ppo, **PENDULUM, n_steps=2048, batch_size=128), "return"),
    Workload("gpt-bf16", 1500, partial(gpt, precision=torch.bfloat16), "loss"),
    Workload("gpt-unclipped", 1500, partial(gpt, limit=None), "loss"),
    Workload("gpt-rate-5e-3", 1500, partial(gpt, rate=5e-3), "loss"),
    Workload("gpt-accumulated-4", 1000, partial(gpt, accumulated=4), "loss"),
    Workload("resnet-bf16", 1500, partial(resnet, precision=torch.bfloat16), "loss"),
    Workload("resnet-clipped", 1500, partial(resnet, limit=1.0), "loss"),
    Workload("resnet-rate-0.5", 1500, partial(resnet, rate=0.5), "loss"),
    Workload("resnet-accumulated-4", 1000, partial(resnet, accumulated=4), "loss"),
]
