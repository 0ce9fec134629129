"""The loops whose cost is measured: real libraries with their own settings, on models small enough to be unfavourable.

A loop is made anew for each block, from one seed, so that every block does the same work.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = ["LOOPS", "SEED", "Loop"]

SEED = 7


@dataclass(frozen=True)
class Loop:
    """A training that is ready to run.

    Attributes:
        train: the whole training, once.
        optimizers: as ``gradwatch.track`` takes them, by name.
        modules: as ``gradwatch.track`` takes them, by name.
    """

    train: Callable[[], object]
    optimizers: Mapping[str, Optimizer]
    modules: Mapping[str, nn.Module]

    def parameters(self) -> list[Tensor]:
        return [
            p
            for optimizer in self.optimizers.values()
            for group in optimizer.param_groups
            for p in group["params"]
        ]


def dqn() -> Loop:
    """Stable-Baselines3's DQN with its defaults: 64 x 64, batch 32, one gradient step for four of the environment."""
    from stable_baselines3 import DQN

    agent = DQN("MlpPolicy", "CartPole-v1", seed=SEED, device="cpu")
    return Loop(lambda: agent.learn(2500), {"q": agent.policy.optimizer}, {"q_net": agent.q_net})


def ppo() -> Loop:
    """Stable-Baselines3's PPO with its defaults: 64 x 64, 320 gradient steps of 64 samples for a rollout of 2,048."""
    from stable_baselines3 import PPO

    agent = PPO("MlpPolicy", "Pendulum-v1", seed=SEED, device="cpu")
    return Loop(lambda: agent.learn(2048), {"ppo": agent.policy.optimizer}, {"policy": agent.policy})


def sac() -> Loop:
    """Stable-Baselines3's SAC with its defaults: 256 x 256, batch 256, three optimizers."""
    from stable_baselines3 import SAC

    agent = SAC("MlpPolicy", "Pendulum-v1", seed=SEED, device="cpu")
    optimizers = {
        "temperature": agent.ent_coef_optimizer,
        "actor": agent.actor.optimizer,
        "critic": agent.critic.optimizer,
    }
    return Loop(lambda: agent.learn(400), optimizers, {"actor_net": agent.actor, "critic_net": agent.critic})


def td3() -> Loop:
    """Stable-Baselines3's TD3 with its defaults: 400 x 300, batch 256, the policy at every second step."""
    from stable_baselines3 import TD3

    agent = TD3("MlpPolicy", "Pendulum-v1", seed=SEED, device="cpu")
    optimizers = {"actor": agent.actor.optimizer, "critic": agent.critic.optimizer}
    return Loop(lambda: agent.learn(400), optimizers, {"actor_net": agent.actor, "critic_net": agent.critic})


def lightning() -> Loop:
    """Lightning's Trainer: an MLP of 99,872 parameters, AdamW, batch 64, clipped at 1."""
    import pytorch_lightning

    class Regression(pytorch_lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(
                nn.Linear(100, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 32)
            )
            self.optimizer = torch.optim.AdamW(self.parameters())

        def configure_optimizers(self) -> Optimizer:
            return self.optimizer

        def training_step(self, batch: list[Tensor]) -> Tensor:
            return (self.net(batch[0]) - batch[1]).square().mean()

    # What Lightning says of the machine it finds is no figure.
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    module = Regression()
    trainer = pytorch_lightning.Trainer(
        accelerator="cpu",
        max_epochs=1,
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = torch.utils.data.TensorDataset(torch.randn(500 * 64, 100), torch.randn(500 * 64, 32))
    batches = torch.utils.data.DataLoader(data, batch_size=64)
    return Loop(lambda: trainer.fit(module, batches), {"adamw": module.optimizer}, {"net": module.net})


def transformers() -> Loop:
    """transformers' Trainer: a GPT-2 of 4 layers of 128, batches of 8 times 64 tokens, clipped at its default of 1."""
    import transformers

    config = transformers.GPT2Config(
        vocab_size=512, n_positions=64, n_embd=128, n_layer=4, n_head=4, bos_token_id=None, eos_token_id=None
    )
    model = transformers.GPT2LMHeadModel(config)
    arguments = transformers.TrainingArguments(
        output_dir=tempfile.gettempdir(),
        max_steps=30,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    sentences = [{"input_ids": ids, "labels": ids} for ids in torch.randint(512, (240, 64))]
    trainer = transformers.Trainer(model=model, args=arguments, train_dataset=sentences)
    trainer.remove_callback(transformers.PrinterCallback)
    return Loop(trainer.train, {"adamw": trainer.create_optimizer()}, {"gpt2": model})


def dcgan() -> Loop:
    """A DCGAN for pictures of 32 x 32, 16 channels at its narrowest, batch 16, a loop in plain torch."""

    def up(i: int, o: int) -> list[nn.Module]:
        return [nn.ConvTranspose2d(i, o, 4, 2, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU()]

    def down(i: int, o: int) -> list[nn.Module]:
        return [nn.Conv2d(i, o, 4, 2, 1, bias=False), nn.BatchNorm2d(o), nn.LeakyReLU(0.2)]

    first = [nn.ConvTranspose2d(64, 64, 4, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    generator = nn.Sequential(*first, *up(64, 32), *up(32, 16), nn.ConvTranspose2d(16, 1, 4, 2, 1), nn.Tanh())
    critic = nn.Sequential(
        nn.Conv2d(1, 16, 4, 2, 1),
        nn.LeakyReLU(0.2),
        *down(16, 32),
        *down(32, 64),
        nn.Conv2d(64, 1, 4),
        nn.Flatten(),
    )
    optimizers = {
        "generator": torch.optim.Adam(generator.parameters(), 2e-4, betas=(0.5, 0.999)),
        "critic": torch.optim.Adam(critic.parameters(), 2e-4, betas=(0.5, 0.999)),
    }
    pictures = torch.rand(16, 1, 32, 32) * 2 - 1
    loss, real, fake = nn.BCEWithLogitsLoss(), torch.ones(16, 1), torch.zeros(16, 1)

    def train() -> None:
        for _ in range(80):
            drawn = generator(torch.randn(16, 64, 1, 1))
            optimizers["critic"].zero_grad()
            loss(critic(pictures), real).backward()
            loss(critic(drawn.detach()), fake).backward()
            optimizers["critic"].step()
            optimizers["generator"].zero_grad()
            loss(critic(drawn), real).backward()
            optimizers["generator"].step()

    return Loop(train, optimizers, {"generator_net": generator, "critic_net": critic})


LOOPS: dict[str, Callable[[], Loop]] = {
    make.__name__: make for make in (dqn, ppo, sac, td3, lightning, transformers, dcgan)
}
