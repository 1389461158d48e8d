"""`kiln.utils.checkpoint`: what a function computes is not kept for the gradient, but computed again when it is wanted.

The function runs with the tape, which shows where gradients leave it (its arguments, and what it closes over); then one
node takes the place of all that it put there. On the way back the node calls the function once more, and walks what the
tape then holds: the same ops in the same order (autocast is what it was), so gradients are those without a checkpoint,
bit for bit.

Inside `kiln.compile` and inside `vmap` and `jvp` a checkpoint only calls its function (a compiled function decides
itself what to compute again).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence, Set
from fractions import Fraction
from typing import Any

from kiln import dispatch, random
from kiln.autograd.backward import Walk
from kiln.autograd.grad_mode import enable_grad
from kiln.autograd.hooks import hand_on
from kiln.autograd.tape import (
    Edge,
    Node,
    Saved,
    attach_one,
    check_versions,
    edge_of,
    next_sequence,
    nodes_since,
    resolved,
)
from kiln.base import MODES, REQUIRES_GRAD, TensorBase
from kiln.casting import suspended
from kiln.errors import ArgumentError, GradError, InvalidValueError
from kiln.ir.types import TensorType
from kiln.pytree import flatten, unflatten

__all__ = ["checkpoint", "checkpoint_sequential"]

Contexts = Callable[[], tuple[Any, Any]]


def checkpoint(
    function: Callable[..., Any],
    *args: Any,
    use_reentrant: bool | None = None,
    preserve_rng_state: bool = True,
    context_fn: Contexts | None = None,
    determinism_check: str = "default",
    debug: bool = False,
    early_stop: bool = True,
    **kwargs: Any,
) -> Any:
    """function(*args, **kwargs), computed again for the gradient. `preserve_rng_state`: with the same random numbers.
    `context_fn` gives two context managers: around the call, and around the second one. `determinism_check`: "default"
    makes a GradError of results that have other types the second time, "none" does not look. Both values of
    `use_reentrant` mean the same; `debug` and `early_stop` change nothing."""
    del debug, early_stop
    if use_reentrant and (kwargs or context_fn is not None):
        raise ArgumentError("use_reentrant=True takes neither keyword arguments nor context_fn", op="checkpoint")
    if determinism_check not in ("default", "none"):
        raise InvalidValueError(f"determinism_check is {determinism_check!r}", op="checkpoint", fix='"default", "none"')
    around, again = (contextlib.nullcontext(),) * 2 if context_fn is None else context_fn()
    if not MODES.grad_enabled or MODES.recorder is not None or MODES.layers:
        with around:
            return function(*args, **kwargs)
    before, mode = random.get_rng_state() if preserve_rng_state else None, MODES.autocast
    start = next_sequence()
    with around:
        returned = function(*args, **kwargs)
    outputs, tree = flatten(returned)
    inside = [k for k, t in enumerate(outputs) if _made_since(t, start)]
    if not inside:
        return returned

    def call() -> list[Any]:
        with _state(before), enable_grad(), suspended(mode), again:
            return flatten(function(*args, **kwargs))[0]

    held = [t for t in flatten((args, kwargs))[0] if isinstance(t, TensorBase)]
    node = _CheckpointNode(call, [outputs[k] for k in inside], inside, start, held, determinism_check == "default")
    for i, k in enumerate(inside):
        t = outputs[k]
        outputs[k] = dispatch.tensor_on(t._buffer, t._ptr, t._layout)
        attach_one(outputs[k], node, i)
    return unflatten(tree, iter(outputs))


def _made_since(t: Any, start: int) -> bool:
    """Whether the tape holds a node of since then that made a tensor."""
    return isinstance(t, TensorBase) and t._node is not None and t._node.sequence > start and bool(
        t._flags & REQUIRES_GRAD
    )  # fmt: skip


@contextlib.contextmanager
def _state(rng: Any) -> Any:
    """The default generator as it was, unless None; afterwards as it is."""
    if rng is None:
        yield
        return
    with random.fork_rng():
        random.set_rng_state(rng)
        yield


class _CheckpointNode(Node):
    """The tape entry of a checkpoint: its edges are where gradients leave the function."""

    __slots__ = ("call", "checked", "positions", "reached", "start", "versions")

    continues_fold = True
    runs_user_code = True

    def __init__(
        self,
        call: Callable[[], list[Any]],
        outputs: Sequence[Any],
        positions: Sequence[int],
        start: int,
        held: Sequence[Any],
        checked: bool,
    ) -> None:
        edges, self.reached = _boundary([edge_of(t) for t in outputs], start)
        super().__init__(edges, [t.ttype for t in outputs])
        self.start: int | Fraction = start
        self.call: Callable[[], list[Any]] | None = call
        self.positions = tuple(positions)
        self.checked = checked
        self.versions: tuple[Saved, ...] = tuple([(t, t._buffer, t._buffer.version) for t in held])

    def name(self) -> str:
        return "CheckpointBackward"

    @property
    def operation(self) -> str:
        return "checkpoint"

    def behind(self, index: int) -> Set[int]:
        return self.reached[index]

    def _again(self) -> tuple[list[Edge], int]:
        """The results made anew, as edges, and when that began."""
        if self.call is None:
            raise GradError(
                "the tape was already walked here and what it had saved is gone",
                op="checkpoint",
                fix="call backward or grad with retain_graph=True the first time",
            )
        check_versions("checkpoint", self.versions)
        start = next_sequence()
        outputs = self.call()
        made: list[Any] = [outputs[k] if k < len(outputs) else None for k in self.positions]
        types: list[TensorType | None] = [t.ttype if isinstance(t, TensorBase) else None for t in made]
        if None in types or (self.checked and tuple(types) != self.results):
            raise GradError(
                f"the function gave {', '.join(map(str, types))} when it was called again, "
                f"{', '.join(map(str, self.results))} at first",
                op="checkpoint",
                fix="it must do the same each time",
            )
        return [edge_of(t) for t in made], start

    def apply(self, grads: Sequence[Any], running: Sequence[Any]) -> Sequence[Any]:
        edges, start = self._again()
        if not set(map(_known, _boundary(edges, start)[0])) <= set(map(_known, map(resolved, self.edges))):
            raise GradError("the function used other tensors when it was called again", op="checkpoint")
        walk = Walk()
        for edge, total in zip(self.edges, running, strict=True):
            walk.put(edge, total)
        for edge, grad in zip(edges, grads, strict=True):
            walk.add(edge, grad)
        walk.run({}, None, MODES.grad_enabled, above=start)
        return [walk.so_far(e) for e in self.edges]

    def expand(self) -> None:
        """Put the nodes of the function on the tape, numbered as if they had been there from the start."""
        if self.expansion is not None:
            return
        edges, start = self._again()
        room, taken = self.sequence - self.start - 1, next_sequence() - start
        for node in nodes_since(edges, start):
            numbers = [node.sequence, *([node.start] if isinstance(node, _CheckpointNode) else [])]
            if taken <= room:
                numbers = [self.start + n - start for n in numbers]
            else:
                numbers = [self.start + (n - start) * Fraction(room, taken) for n in numbers]
            node.sequence = numbers[0]
            if isinstance(node, _CheckpointNode):
                node.start = numbers[1]
        self.expansion = tuple(edges)
        hand_on(self)

    def release(self) -> None:
        self.call = None
        self.versions = ()


def _known(edge: Edge) -> tuple[int, int]:
    assert edge is not None
    return id(edge[0]), edge[1]


def _boundary(outputs: Sequence[Edge], start: int) -> tuple[list[Edge], list[frozenset[int]]]:
    """Where gradients leave the nodes since `start`, each place once; and by output which others it was computed
    from."""
    ends: dict[tuple[int, int], Edge] = {}
    own = {_known(e): k for k, e in enumerate(outputs) if e is not None}
    reached = []
    for k, first in enumerate(outputs):
        todo, seen, behind = [first], set(), set()
        while todo:
            edge = resolved(todo.pop())
            if edge is None:
                continue
            if not isinstance(edge[0], Node) or edge[0].sequence <= start:
                ends.setdefault(_known(edge), edge)
                continue
            behind.add(own.get(_known(edge), k))
            if edge[0] not in seen:
                seen.add(edge[0])
                todo.extend(edge[0].edges)
        reached.append(frozenset(behind - {k}))
    return list(ends.values()), reached


def checkpoint_sequential(
    functions: Any,
    segments: int,
    input: Any,
    use_reentrant: bool | None = None,
    preserve_rng_state: bool = True,
    **kwargs: Any,
) -> Any:
    """The functions (a list, or an `nn.Sequential`) one after the other, as `segments` checkpoints; the last one is an
    ordinary call, since its gradient comes first."""
    if kwargs:
        raise ArgumentError(f"got unexpected keyword arguments {sorted(kwargs)}", op="checkpoint_sequential")
    steps: Sequence[Callable[..., Any]] = list(functions)
    if not 1 <= segments <= max(1, len(steps)):
        raise InvalidValueError(f"{len(steps)} functions can't make {segments} segments", op="checkpoint_sequential")
    size = len(steps) // segments

    def run(part: Sequence[Callable[..., Any]], x: Any) -> Any:
        for step in part:
            x = step(x)
        return x

    for k in range(segments - 1):
        part = steps[k * size : (k + 1) * size]
        input = checkpoint(
            lambda x, part=part: run(part, x), input, use_reentrant=use_reentrant, preserve_rng_state=preserve_rng_state
        )
    return run(steps[(segments - 1) * size :], input)
