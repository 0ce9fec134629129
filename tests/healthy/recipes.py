"""Thirty usual recipes, small: a few seconds each."""

from __future__ import annotations

from functools import partial

from tests.healthy import recipes_generative as generative
from tests.healthy import recipes_others as others
from tests.healthy import recipes_sequences as sequences
from tests.healthy import recipes_vision as vision
from tests.healthy.agents import ppo, sac
from tests.healthy.run import Workload

__all__ = ["RECIPES"]

RECIPES = [
    Workload("vit", 800, vision.vit, "loss"),
    Workload("vit-rate-1e-5", 800, partial(vision.vit, rate=1e-5), "loss"),
    Workload("vit-rate-5e-3", 800, partial(vision.vit, rate=5e-3, limit=None), "loss"),
    Workload("resnet-one-cycle", 800, vision.resnet_one_cycle, "loss"),
    Workload("resnet-restarts", 800, vision.resnet_restarts, "loss"),
    Workload("convnext", 800, vision.convnext, "loss"),
    Workload("mlp-rate-0.5", 800, partial(vision.plain, rate=0.5), "loss"),
    Workload("mlp-rate-1e-4", 800, partial(vision.plain, rate=1e-4), "loss"),
    Workload("mlp-momentum-steps", 800, partial(vision.plain, rate=0.02, momentum=0.9, every=300), "loss"),
    Workload("simclr", 500, vision.simclr, "loss"),
    Workload("triplets", 500, vision.triplets, "loss"),
    Workload("distilled", 800, vision.distilled, "loss"),
    Workload("low-rank", 600, vision.low_rank, "loss"),
    Workload("gpt2", 800, sequences.decoder, "loss"),
    Workload("gpt2-restarts", 800, partial(sequences.decoder, restarts=True), "loss"),
    Workload("gpt2-rate-1e-2", 800, partial(sequences.decoder, rate=1e-2, warm_up=20), "loss"),
    Workload("bert", 800, sequences.bert, "loss"),
    Workload("t5", 800, sequences.t5, "loss"),
    Workload("lstm", 800, sequences.lstm, "loss"),
    Workload("gru-packed", 800, sequences.gru_packed, "loss"),
    Workload("word2vec", 1000, sequences.word2vec, "loss"),
    Workload("experts", 800, sequences.experts, "loss"),
    Workload("diffusion", 500, generative.diffusion, "loss"),
    Workload("diffusion-velocity", 500, partial(generative.diffusion, velocity=True), "loss"),
    Workload("flow-matching", 1000, generative.flow_matching, "loss"),
    Workload("real-nvp", 800, generative.real_nvp, "loss"),
    Workload("vae", 800, generative.vae, "loss"),
    Workload("vq", 800, generative.vq, "loss"),
    Workload("gan", 2000, generative.adversarial, "loss"),
    Workload("gan-hinge", 2000, partial(generative.adversarial, kind="hinge", rates=(2e-4, 1e-3)), "loss"),
    Workload("gan-wasserstein", 2400, partial(generative.adversarial, kind="wasserstein", critics=3), "loss"),
    Workload("gcn", 600, others.convolution_on_graph, "loss"),
    Workload("gat", 800, others.attention_on_graphs, "loss"),
    Workload("factorised", 1500, others.factorised, "loss"),
    Workload("heat", 800, others.heat, "loss"),
    Workload("tasks", 1000, others.tasks, "loss"),
    Workload("maml", 500, others.meta, "loss"),
    Workload("dqn", 6000, others.dqn, "return"),
    Workload("ppo-fast", 2560, partial(ppo, learning_rate=1e-3, n_steps=512), "return"),
    Workload("sac-slow", 6000, partial(sac, rate=5e-4), "return"),
]
