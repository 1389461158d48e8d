"""Numbers with tangents: the layers of forward-mode differentiation.

A dual tensor holds a primal and a tangent (None: zero) of the layers below. An op is applied to the primals, and its
declaration's `jvp` to them and the tangents. Tangents are never written to: what is written in place gets another one,
from which its views derive theirs anew, as the tape does with histories. `Linear` keeps in place of tangents where they
come from, and so records the linear map from the tangents of the inputs to those of the results, which `linearize`
carries out later.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from kiln.autograd.tape import Saved, check_versions, put, write_in_place
from kiln.errors import GradError
from kiln.ir.graph import Attrs
from kiln.ir.ops.base import OPS, Call, OpDef
from kiln.ir.ops.create import zeros_of
from kiln.layers import Content, Layer, content_of, layered, owned
from kiln.tensor import Tensor

Push: TypeAlias = Callable[[Sequence[Any]], Sequence[Any]]
"""Tangents of operands (None: zero) -> tangents of results, linearly."""


class Dual(Content):
    """A primal, and its tangent. A view knows what it is a view of, by which ops, and when its tangent was made."""

    __slots__ = ("chain", "root", "stamp", "tangent")

    def __init__(self, layer: Layer, inner: Tensor, tangent: Any) -> None:
        super().__init__(layer, inner)
        self.tangent = tangent
        self.root: Dual | None = None
        self.chain: tuple[tuple[OpDef, Attrs], ...] = ()
        self.stamp = 0
        """How often the root was written; of a view, when its tangent was that of its part of the root."""

    def latest(self) -> Any:
        """The tangent now."""
        root = self.root
        if root is not None and root.stamp != self.stamp:
            self.tangent, self.stamp = root.tangent, root.stamp
            for op, attrs in self.chain if self.tangent is not None else ():
                (self.tangent,) = op.bind((self.tangent,), attrs)
        return self.tangent

    def become(self, tangent: Any) -> None:
        """Have this tangent, and be a view of nothing."""
        self.tangent, self.root, self.chain, self.stamp = tangent, None, (), 0

    def overwrite(self, tangent: Any) -> None:
        """The tensor was written to: it has this tangent now."""
        root = self.root
        if root is None:
            self.tangent, self.stamp = tangent, self.stamp + 1
            return
        if root.tangent is not None or tangent is not None:
            present = root.tangent if tangent is None else tangent
            whole, part = (zeros_of(c.inner.ttype, present) for c in (root, self))
            base = whole if root.tangent is None else root.tangent
            root.tangent = put(base, self.chain, part if tangent is None else tangent)
        root.stamp += 1
        self.tangent, self.stamp = tangent, root.stamp


class DualLayer(Layer):
    """One `jvp`, or one `dual_level`."""

    name = "jvp"
    muted = False
    """Whether primals alone count for now."""

    def wrap(self, primal: Tensor, tangent: Any = None) -> Tensor:
        """A tensor of this layer."""
        return layered(Dual(self, primal, tangent), primal.shape)

    def open(self, t: Any) -> tuple[Tensor, Any]:
        """Primal and tangent of `t`, which is of this layer or of one below."""
        if not owned(t, self):
            return t, None
        content = content_of(t)
        return content.inner, None if self.muted else content.latest()

    def apply(self, op: OpDef, operands: Sequence[Any], attrs: Attrs) -> tuple[Tensor, ...]:
        primals, tangents = zip(*map(self.open, operands), strict=True)
        results = op.bind(primals, attrs)
        pushed: Sequence[Any] = (None,) * len(results)
        if any(t is not None for t in tangents) and has_tangents(op, results):
            reads = [x for where, at in zip((primals, results), op.saved([True] * len(primals)), strict=True)
                     for x in (where[i] for i in at if i < len(where))]  # fmt: skip
            pushed = self.push(op.name, functools.partial(_jvp, op, primals, results, attrs), tangents, results, reads)
        made = tuple([self.wrap(r, t) for r, t in zip(results, pushed, strict=True)])
        if op.view is not None and results[0]._buffer is primals[0]._buffer:
            above, view = content_of(operands[0]), content_of(made[0])
            view.root, view.chain = above.root or above, (*above.chain, (op, attrs))
            view.stamp = view.root.stamp
        return made

    def push(
        self, name: str, rule: Push, tangents: Sequence[Any], results: Sequence[Any], reads: Sequence[Any]
    ) -> Sequence[Any]:
        """The tangents of results: what `rule`, which reads some tensors, makes of those of the operands."""
        return rule(tangents)

    def lift(self, t: Tensor) -> Tensor:
        return self.wrap(t)

    def like(self, example: Tensor, t: Tensor) -> Tensor:
        return self.wrap(t)

    def write(self, target: Tensor, name: str, value: Tensor) -> None:
        new, tangent = self.open(value)
        write_in_place(content_of(target).inner, name, OPS["copy"], (new,), {})
        content_of(target).overwrite(tangent)

    def read(self, t: Tensor, what: str) -> Any:
        return self.open(t)[0]._read(what)


def has_tangents(op: OpDef, results: Sequence[Any]) -> bool:
    """Whether the op's results can have tangents. GradError where they should, and the op has no derivative."""
    if op.jvp is None and any(r.dtype.is_inexact for r in results):
        raise GradError(f"{op.name} has no derivative", op=op.name)
    return op.jvp is not None


def _jvp(op: OpDef, primals: Any, results: Any, attrs: Attrs, tangents: Sequence[Any]) -> Sequence[Any]:
    assert op.jvp is not None
    return op.jvp(Call(primals, results, attrs, tuple([t is not None for t in tangents])), *tangents)


class Linear(DualLayer):
    """One `linearize`. Tangents are numbers of places; `steps` say how what lies there is made."""

    name = "linearize"

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[str, Push, tuple[int | None, ...], int, tuple[Saved, ...]]] = []
        self.places = 0

    def place(self) -> int:
        """A new one."""
        self.places += 1
        return self.places - 1

    def push(
        self, name: str, rule: Push, tangents: Sequence[Any], results: Sequence[Any], reads: Sequence[Any]
    ) -> Sequence[Any]:
        first = self.places
        self.places += len(results)
        versions = tuple([(t, t._buffer, t._buffer.version) for t in reads])
        self.steps.append((name, rule, tuple(tangents), first, versions))
        return [first + k if r.dtype.is_inexact else None for k, r in enumerate(results)]

    def write(self, target: Tensor, name: str, value: Tensor) -> None:
        self.refuse("an in-place write", op=name, operands=[target, value], fix="write without the underscore")

    def run(self, given: Sequence[Any]) -> list[Any]:
        """What lies in each place, when `given` lies in the first ones."""
        found: list[Any] = [None] * self.places
        found[: len(given)] = given
        for name, rule, tangents, first, versions in self.steps:
            here = [None if k is None else found[k] for k in tangents]
            if any(t is not None for t in here):
                check_versions(name, versions)
                made = rule(here)
                found[first : first + len(made)] = made
        return found
