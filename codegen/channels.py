"""Where the operands of convolutions by tensor cores lie: with the channels that are added up as neighbours.

A product takes 16 bytes at a time along what it sums over (`codegen/cuda/convolution_tensor.py`). What elementwise ops
compute for convolutions alone they compute in that order; anything else is copied, since other kernels would read it
across. The gradients of one convolution share their copies; those of the forward pass are its own, so that they need
not be kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kiln.codegen.layout import Layout, Strides, assign
from kiln.ir.graph import Graph, GraphBuilder, Operation, Value, rebuild
from kiln.ir.ops import OPS
from kiln.ir.ops.base import OpDef
from kiln.ir.ops.conv import LAST
from kiln.ir.passes.inside import inner_changed

Order = tuple[int, ...]
RESULTS_LAST: Final = (1, 2, 3, 0)


def channels_last(graph: Graph, strides: Sequence[Strides | None]) -> Graph:
    """`graph` with operands that lie so; `graph` itself when there is nothing to do."""
    graph = inner_changed(graph, lambda op, key, inner: channels_last(inner, [None] * len(inner.inputs)))
    if not any("tensor_cores" in op.attrs for op in graph.operations):
        return graph
    return _Turned(graph, assign(graph, strides)).graph()


def _orders(op: Operation) -> tuple[Order, Order]:
    """Of the operands of a convolution: which dimension comes last in memory, and which ones before it."""
    return LAST, RESULTS_LAST if op.op.name == "conv2d_input" else LAST


def _elementwise(v: Value) -> bool:
    """Whether an op computes each element of `v` from those at the same place of its operands."""
    op = v.producer
    if op is None or not isinstance(op.op, OpDef) or "elementwise" not in op.op.traits or len(op.results) != 1:
        return False
    return bool(op.operands) and all(u.type.shape == v.type.shape for u in op.operands)


def _back(order: Order) -> Order:
    return tuple(order.index(d) for d in range(len(order)))


class _Turned:
    """A graph being rebuilt. `wanted`: what is computed in another order, and which."""

    def __init__(self, graph: Graph, layouts: dict[Value, Layout | None]) -> None:
        self.old, self.layouts = graph, layouts
        self.uses = graph.uses()
        self.wanted = self._wanted()
        self.builder: GraphBuilder
        self.mapped: dict[Value, Value]
        self.builder, self.mapped = rebuild(graph)
        self.turned: dict[Value, Value] = {}
        self.copies: dict[tuple[Value, Order, bool], Value] = {}

    def _wanted(self) -> dict[Value, Order]:
        found: dict[Value, Order] = {}
        outputs = set(self.old.outputs)
        for op in reversed(self.old.operations):
            if "tensor_cores" in op.attrs:
                for v, order in zip(op.operands, _orders(op), strict=True):
                    alone = all("tensor_cores" in user.attrs for user, _ in self.uses[v])
                    if _elementwise(v) and alone and v not in outputs:
                        found[v] = order  # of several the first one's
            elif op.results[0] in found:
                for u in op.operands:  # what is part of the same kernel
                    if _elementwise(u) and u not in outputs and len(self.uses[u]) == 1:
                        found[u] = found[op.results[0]]
        return found

    def graph(self) -> Graph:
        for op in self.old.operations:
            operands = [self.mapped[v] for v in op.operands]
            if op.results[0] in self.wanted:
                self._turn(op)
                continue
            if "tensor_cores" in op.attrs:
                pairs = zip(op.operands, _orders(op), strict=True)
                operands = [self._lying(v, order, op) for v, order in pairs]
            self.mapped.update(zip(op.results, self.builder.clone(op, operands), strict=True))
        return self.builder.build([self.mapped[v] for v in self.old.outputs], self.old.aliases)

    def _turn(self, op: Operation) -> None:
        """An elementwise op in another order, and a view of its result as it was."""
        order = self.wanted[op.result]
        operands = [
            self.turned[v] if self.wanted.get(v) == order else self._permuted(self.mapped[v], order, op)
            for v in op.operands
        ]
        (made,) = self.builder.add(op.op, operands, op.attrs, op.loc)
        self.turned[op.result] = made
        self.mapped[op.result] = self._permuted(made, _back(order), op)

    def _permuted(self, v: Value, order: Order, op: Operation) -> Value:
        return self.builder.add(OPS["permute"], [v], {"dims": order}, op.loc)[0]

    def _lying(self, v: Value, order: Order, op: Operation) -> Value:
        """An operand, where its neighbours along the last dimension of the order are neighbours in memory."""
        layout, last = self.layouts[v], order[-1]
        if self.wanted.get(v) == order or v.type.shape[last] == 1:
            return self.mapped[v]
        if layout is not None and layout.strides[last] == 1 and layout.root not in self.wanted:
            return self.mapped[v]
        key = v, order, op.op.name == "conv2d"
        if key not in self.copies:
            (there,) = self.builder.add(OPS["copy"], [self._permuted(self.mapped[v], order, op)], {}, op.loc)
            self.copies[key] = self._permuted(there, _back(order), op)
        return self.copies[key]
