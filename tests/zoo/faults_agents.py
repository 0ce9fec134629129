"""The fault that started it all, and others in which the loss finds a way around a silent module."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_

from tests.zoo.faults_clipping import saturated
from tests.zoo.nets import convolutions, norm, silent
from tests.zoo.registry import Verdict, fault
from tests.zoo.run import Run


class Policy(nn.Module):
    """The seed's actor: its tanh is a function inside ``forward``."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(6, 16), nn.ReLU())
        self.last = nn.Linear(16, 2)

    def before(self, x: Tensor) -> Tensor:
        hidden = torch.relu(functional.linear(x, self.hidden[0].weight, self.hidden[0].bias))
        return functional.linear(hidden, self.last.weight, self.last.bias)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.last(self.hidden(x)))


class Agent:
    """The actor's CNN feeds its features to the Q-function too, around the policy; TD3 without its twin."""

    def __init__(self, scale: float) -> None:
        self.actor_cnn, self.critic_cnn = convolutions(), convolutions()
        self.actor_mlp, self.critic_mlp = (
            Policy(),
            nn.Sequential(nn.Linear(8, 16), nn.LeakyReLU(), nn.Linear(16, 1)),
        )
        nn.init.constant_(self.actor_mlp.last.bias, 40.0)
        self.scale = scale
        self.modules = {
            "actor_cnn": self.actor_cnn,
            "actor_mlp": self.actor_mlp,
            "critic_cnn": self.critic_cnn,
            "critic_mlp": self.critic_mlp,
        }
        actor = [*self.actor_cnn.parameters(), *self.actor_mlp.parameters()]
        critic = [*self.critic_cnn.parameters(), *self.critic_mlp.parameters()]
        self.optimizers = {"actor": torch.optim.SGD(actor, lr=1e-9), "critic": torch.optim.Adam(critic, lr=1e-3)}

    def critic_loss(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            target = torch.randn(len(images), 1)
        q = self.critic_mlp(torch.cat([self.critic_cnn(images), torch.rand(len(images), 2)], 1))
        return functional.mse_loss(q, target)

    def actor_loss(self, images: Tensor) -> Tensor:
        features = self.actor_cnn(images)
        return -self.scale * self.critic_mlp(torch.cat([features, self.actor_mlp(features)], 1)).mean()

    def saturated(self, images: Tensor) -> bool:
        with torch.no_grad():
            before = self.actor_mlp.before(self.actor_cnn(images))
        return float(before.abs().min()) > 9.1 and silent(self.actor_mlp)


def updated(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


@fault(
    Verdict("zero", "saturated-tanh", module="actor_mlp", optimizer="actor", where=("actor_mlp",)),
    Verdict("clip-saturated", "shortcut", optimizer="actor", where=("actor_cnn",), evidence=("share",)),
)
def the_seed(run: Run) -> None:
    """The policy sits saturated, its CNN takes the whole norm past it, and clipping hides how large that is."""
    agent = Agent(scale=1e4)
    ratios: list[float] = []
    with run.track(agent.optimizers, agent.modules):
        for _ in run.steps(70):
            images = torch.randn(8, 1, 6, 6)
            updated(agent.optimizers["critic"], agent.critic_loss(images))
            actor = agent.optimizers["actor"]
            actor.zero_grad()
            agent.actor_loss(images).backward()
            agent.critic_mlp.zero_grad()
            parameters = [p for group in actor.param_groups for p in group["params"]]
            before = norm(parameters)
            present = agent.saturated(images) and norm(agent.actor_cnn) == before
            clip_grad_norm_(parameters, 1.0)
            ratios.append(norm(parameters) / before)
            run.fault(present)
            run.fault(present and saturated(ratios), rule="clip-saturated", share=1.0)
            actor.step()


@fault(
    Verdict("zero", "saturated-tanh", module="actor_mlp", optimizer="actor", where=("actor_mlp",)),
    Verdict("explosion", "shortcut", optimizer="actor", where=("actor_cnn",), evidence=("share",)),
    also=("growth",),
)
def norm_explodes_past_a_silent_policy(run: Run) -> None:
    """Unclipped, with a critic whose scale jumps at step 31."""
    agent, usual = Agent(scale=1.0), 1.0
    with run.track(agent.optimizers, agent.modules):
        for step in run.steps(50):
            images = torch.randn(8, 1, 6, 6)
            updated(agent.optimizers["critic"], agent.critic_loss(images))
            actor = agent.optimizers["actor"]
            agent.scale = 1.0 if step <= 30 else 1e4
            actor.zero_grad()
            agent.actor_loss(images).backward()
            agent.critic_mlp.zero_grad()
            present = agent.saturated(images)
            run.fault(present)
            run.fault(present and norm(agent.actor_cnn) > 100 * usual, rule="explosion", share=1.0)
            usual = usual if step > 30 else norm(agent.actor_cnn)
            actor.step()


class Bottleneck(nn.Module):
    """A small U-net: what the encoder makes reaches the decoder through the bottleneck, and past it."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(6, 8)
        self.bottleneck = nn.Sequential(nn.Linear(8, 4), nn.ReLU())
        self.decoder = nn.Linear(12, 6).requires_grad_(False)
        nn.init.constant_(self.bottleneck[0].bias, -1e6)

    def forward(self, x: Tensor) -> Tensor:
        coded = self.encoder(x)
        return self.decoder(torch.cat([coded, self.bottleneck(coded)], 1))  # type: ignore[no-any-return]


@fault(
    Verdict("zero", "dead-relu", module="bottleneck", where=("bottleneck.1",)),
    Verdict("growth", "shortcut", where=("encoder",)),
    also=("explosion",),
)
def skip_connection_around_a_dead_bottleneck(run: Run) -> None:
    net = Bottleneck()
    optimizer = torch.optim.SGD([*net.encoder.parameters(), *net.bottleneck.parameters()], lr=1e-5)
    norms: list[float] = []
    modules = {"encoder": net.encoder, "bottleneck": net.bottleneck}
    with run.track(optimizer, modules):
        for step in run.steps(45):
            x = torch.randn(16, 6)
            optimizer.zero_grad()
            (1.25**step * net(x).square().mean()).backward()
            norms.append(norm(net.encoder))
            before = functional.linear(
                functional.linear(x, net.encoder.weight, net.encoder.bias),
                net.bottleneck[0].weight,
                net.bottleneck[0].bias,
            )
            run.fault(float(before.detach().max()) < 0 and silent(net.bottleneck))
            run.fault(len(norms) >= 25 and norms[-1] > 8 * norms[-25], rule="growth")
            optimizer.step()
