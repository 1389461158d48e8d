"""Losses and loops of reinforcement learning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import kiln
from kiln.nn import functional as F
from tests.frontend.battery.doors import Programs
from tests.frontend.battery.kit import draw, linear, vector

PROGRAMS = program = Programs()


@program
def clipped_policy_loss(c: Any) -> None:
    @c
    def loss(new: Any, old: Any, advantage: Any, clip: float, target: float | None = None) -> Any:
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        ratio = (new - old).exp()
        value = -kiln.min(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage).mean()
        kl = (old - new).mean()
        if target is not None and kl > target:
            return value.detach(), True
        return value, False

    for seed, target in ((1, None), (2, 0.1), (3, 0.1), (2, 0.1)):
        loss(draw(4, seed=seed, grad=True), draw(4, seed=5), draw(4, seed=6), 0.2, target)


@program
def actor_critic_returns(c: Any) -> None:
    @c
    def returns(rewards: Any, values: Any, done: Any, gamma: float = 0.9) -> Any:
        running = kiln.zeros(())
        out = []
        for t in reversed(range(len(rewards))):
            running = rewards[t] + gamma * running * (1 - done[t].float())
            out.insert(0, running)
        target = kiln.stack(out)
        return (target.detach() - values).square().mean(), target

    for n in (3, 2, 3):
        returns(draw(n), draw(n, seed=1, grad=True), kiln.arange(n) == 1)


@program
def generalised_advantage(c: Any) -> None:
    @c
    def advantage(rewards: list[float], values: Any, lam: float = 0.95) -> Any:
        out = kiln.zeros(len(rewards))
        last = 0.0
        for t in range(len(rewards) - 1, -1, -1):
            delta = rewards[t] + 0.9 * values[t + 1] - values[t]
            last = out[t] = delta + 0.9 * lam * last
        return out

    for rewards in ([1.0, 0.0], [0.5, 2.0], [1.0, 0.0]):
        advantage(rewards, draw(3))


@program
def replay_buffer_in_tensors(c: Any) -> None:
    class Buffer:
        def __init__(self, size: int) -> None:
            self.data = kiln.zeros(size, 2)
            self.at = kiln.tensor(0)

        def push(self, x: Any) -> Any:
            self.data[self.at % len(self.data)] = x
            self.at += 1
            return self.data.mean(0)

        def sample(self, n: int) -> Any:
            return self.data[kiln.randint(0, len(self.data), (n,))]

    buffer = Buffer(2)
    push, sample = c(buffer.push), c(buffer.sample)
    for n in range(4):
        push(draw(2, seed=n))
    for n in (1, 2, 1):
        sample(n)


@program
def replay_buffer_in_a_list(c: Any) -> None:
    memory: list[Any] = []

    @c
    def push(x: Any) -> Any:
        memory.append(x * 2)
        if len(memory) > 2:
            memory.pop(0)
        return kiln.stack(memory).mean(0)

    for n in range(4):
        push(draw(2, seed=n))


@program
def epsilon_greedy(c: Any) -> None:
    q = linear(2, 3)

    @c
    def act(state: Any, epsilon: float) -> int:
        if kiln.rand(()).item() < epsilon:
            return int(kiln.randint(0, 3, ()))
        return int(q(state).argmax())

    for epsilon in (0.5, 0.0, 1.0, 0.5, 0.5):
        act(draw(2), epsilon)


@program
def double_q_targets(c: Any) -> None:
    online, target = linear(2, 3), linear(2, 3, seed=4)

    @c
    def loss(s: Any, a: Any, r: Any, s2: Any, done: Any, double: bool) -> Any:
        q = online(s).gather(1, a[:, None]).squeeze(1)
        with kiln.no_grad():
            if double:
                best = online(s2).argmax(1, keepdim=True)
                following = target(s2).gather(1, best).squeeze(1)
            else:
                following = target(s2).amax(1)
        return F.smooth_l1_loss(q, r + 0.9 * following * ~done)

    batch = (draw(2, 2), kiln.tensor([0, 2]), draw(2, seed=1), draw(2, 2, seed=2), kiln.tensor([True, False]))
    for double in (True, False, True):
        loss(*batch, double)


@program
def soft_target_update(c: Any) -> None:
    online, target = linear(), linear(seed=4)

    @c
    def update(step: int, tau: float | None = None) -> None:
        with kiln.no_grad():
            for p, q in zip(online.parameters(), target.parameters(), strict=True):
                if tau is not None:
                    q.copy_(tau * p + (1 - tau) * q)
                elif step % 2 == 0:
                    q.copy_(p)

    for step, tau in ((0, 0.1), (1, None), (2, None), (3, 0.1)):
        update(step, tau)


@program
def rollout_in_an_environment(c: Any) -> None:
    @dataclass
    class State:
        x: Any
        steps: int = 0
        rewards: list[Any] = field(default_factory=list)

    policy = linear(2, 2)

    @c
    def rollout(x: Any, limit: int) -> Any:
        state = State(x)
        while state.steps < limit:
            state.x = state.x + 0.5 * policy(state.x).tanh()
            state.rewards.append(-state.x.square().sum())
            state.steps += 1
            if state.x.norm() > 2:
                break
        return state.x, kiln.stack(state.rewards).sum(), state.steps

    for x in (vector(0.1, 0.1), vector(1.5, 1.5), vector(0.1, 0.1)):
        rollout(x, 3)
