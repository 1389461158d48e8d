"""Graphs as pictures: a graph of the IR drawn as one self-contained SVG, kernels from top to bottom.

The layout is layered (K. Sugiyama, S. Tagawa and M. Toda, 1981, Methods for visual understanding of hierarchical
system structures, IEEE Transactions on Systems, Man, and Cybernetics 11): ranks by the longest path, invisible nodes
where an edge passes a rank, a few barycentre sweeps for the order in each rank, a few more for the coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from kiln.ir.graph import Graph, Operation, Value
from kiln.ir.ops.base import OpDef, Template
from kiln.ir.printer import attribute
from kiln.ir.types import TensorType

_CHARACTER, _LINE, _GAP, _RANK = 6.7, 15, 18, 26  # pixels: a character's width, a line, between nodes, between ranks
_SWEEPS = 12
_MANY = 12  # with more inputs than this, only those that several kernels read get a node of their own


@dataclass(eq=False)
class _Node:
    """Something with a place; `kind` is "input", "fused", "template", "other" or "" (a bend of an edge)."""

    kind: str
    lines: list[str] = field(default_factory=list)
    tooltip: str = ""
    above: list[_Node] = field(default_factory=list)
    below: list[_Node] = field(default_factory=list)
    rank: int = 0
    x: float = 0.0  # of the middle
    y: float = 0.0  # of the top
    key: float = 0.0
    width: float = 2.0
    height: float = 0.0

    def measure(self) -> None:
        """Make the box as large as its lines."""
        self.width = max(map(len, self.lines)) * _CHARACTER + 18
        self.height = len(self.lines) * _LINE + 10


def svg(graph: Graph) -> str:
    """The graph as the text of an SVG element: a box per kernel, an edge wherever one reads what another wrote.

    Views and literals are not drawn, since no kernel runs for them. A box says which op (of a fusion, the ops that
    name it), what it makes, how many further inputs only it reads, and whether it ends in a result or in the memory
    of an input; hovering shows its text.

    >>> from kiln.ir.parser import parse_graph
    >>> drawn = svg(parse_graph("graph f(%0 x: float32[2]) { %1 = neg(%0) : float32[2] return %1 }"))
    >>> drawn.startswith("<svg"), "neg" in drawn, "float32[2]" in drawn
    (True, True, True)
    """
    nodes = _nodes(graph)
    _rank(nodes)
    ranks = _with_bends(nodes)
    _order(ranks)
    width, height = _place(ranks)
    every = [n for rank in ranks for n in rank]
    body = "".join(_edge(n, target) for n in every for target in n.below) + "".join(_box(n) for n in nodes)
    return (
        f'<svg class="graph" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" role="img" aria-label="{escape(graph.name or "graph")}">'
        f"<style>{_STYLE}</style>{body}</svg>"
    )


_STYLE = """
.graph{font:11px ui-monospace,Menlo,Consolas,monospace}
.graph text{fill:#1d2433}.graph .second{fill:#5b6472}
.graph path{fill:none;stroke:#8a94a6;stroke-opacity:.55}
.graph rect{stroke:#8a94a6;fill:#fff}.graph .input rect{fill:#f1f3f6;stroke-dasharray:3 2}
.graph .fused rect{fill:#dcebff;stroke:#3b7dd8}.graph .template rect{fill:#ffe9cf;stroke:#d07b1c}
"""


def _nodes(graph: Graph) -> list[_Node]:
    """A node per kernel and per input worth one, joined; in the graph's order."""
    names = {v: f"%{i}" for i, v in enumerate(graph.values())}
    readers: dict[Value, int] = {}
    kernels = [op for op in graph.operations if not _is_free(op)]
    for op in kernels:
        for v in {_source(v) for v in op.operands}:
            readers[v] = readers.get(v, 0) + 1
    shown = [v for v in graph.inputs if readers.get(v, 0) > (len(graph.inputs) > _MANY)]
    made: dict[Value, _Node] = {
        v: _Node("input", [f"{v.hint or names[v]} {v.type}"], f"input {names[v]}: {v.type}") for v in shown
    }
    nodes = list(made.values())
    for op in kernels:
        node = _kernel(graph, op, names)
        folded = 0
        for v in dict.fromkeys(_source(v) for v in op.operands):
            if v in made:
                node.above.append(made[v])
                made[v].below.append(node)
            elif v in readers and v.producer is None:
                folded += 1
        if folded:
            node.lines.append(f"+ {folded} input{'s' if folded > 1 else ''}")
        made.update(dict.fromkeys(op.results, node))
        nodes.append(node)
    for node in nodes:
        node.measure()
    return nodes


def _is_free(op: Operation) -> bool:
    """Whether no kernel runs for it: a view, or a literal."""
    return isinstance(op.op, OpDef) and (op.op.view is not None or "constant" in op.op.traits)


def _source(v: Value) -> Value:
    while v.producer is not None and v.producer.operands and _is_free(v.producer):
        v = v.producer.operands[0]
    return v


def _kernel(graph: Graph, op: Operation, names: dict[Value, str]) -> _Node:
    body = op.attrs.get("body")
    fused = isinstance(body, Graph)
    title = body.name if isinstance(body, Graph) else op.op.name
    template = isinstance(op.op, OpDef) and isinstance(op.op.lower, Template)
    ends = [i for i, v in enumerate(graph.outputs) if _source(v) in op.results]
    written = {a.output for a in graph.aliases}
    lines = [title or "kernel", _types([r.type for r in op.results])]
    if updates := sum(i in written for i in ends):
        lines.append(f"updates {updates} input{'s' if updates > 1 else ''}")
    if any(i not in written for i in ends):
        lines.append("result")
    operands = ", ".join(names[v] for v in op.operands)
    text = "\n".join(f"{k}={attribute(a)}" for k, a in op.attrs.items())
    tooltip = f"{', '.join(names[r] for r in op.results)} = {op.op.name}({operands})\n{text}"
    return _Node("fused" if fused else "template" if template else "other", lines, tooltip)


def _types(types: Sequence[TensorType]) -> str:
    """The largest result, and how many others there are."""
    most = max(types, key=lambda t: (len(t.shape), str(t)))
    return str(most) + (f" + {len(types) - 1}" if len(types) > 1 else "")


def _rank(nodes: list[_Node]) -> None:
    """Ranks by the longest path; what reads nothing but inputs stands just above its first reader, as inputs do."""
    for node in nodes:  # readers come after what they read
        node.rank = max((n.rank + 1 for n in node.above), default=0)
    for node in reversed(nodes):
        if node.below and all(n.kind == "input" for n in node.above):
            node.rank = min(n.rank for n in node.below) - 1


def _with_bends(nodes: list[_Node]) -> list[list[_Node]]:
    """The ranks, with an invisible node wherever an edge passes one; edges then join neighbouring ranks.

    All edges from one node go through the same bends as far as they go the same way."""
    first = min((n.rank for n in nodes), default=0)
    ranks: list[list[_Node]] = [[] for _ in range(max((n.rank for n in nodes), default=0) - first + 1)]
    for node in nodes:
        node.rank -= first
        ranks[node.rank].append(node)
    for node in nodes:
        bends = {node.rank: node}
        for target in sorted(node.below, key=lambda n: n.rank):
            for rank in range(node.rank + 1, target.rank):
                if rank not in bends:
                    last = bends[rank - 1]
                    bends[rank] = _Node("", rank=rank, above=[last])
                    ranks[rank].append(bends[rank])
                    last.below.append(bends[rank])
            if (last := bends[target.rank - 1]) is not node:
                node.below.remove(target)
                last.below.append(target)
                target.above[target.above.index(node)] = last
    return ranks


def _order(ranks: list[list[_Node]]) -> None:
    """The order in each rank: nodes go where their neighbours in the rank before are, then after, and again."""
    for sweep in range(_SWEEPS):
        downwards = sweep % 2 == 0
        for rank in ranks if downwards else reversed(ranks):
            for i, node in enumerate(rank):
                near = node.above if downwards else node.below
                node.key = sum(n.x for n in near) / len(near) if near else float(i)
            rank.sort(key=lambda n: n.key)
            for i, node in enumerate(rank):
                node.x = float(i)


def _place(ranks: list[list[_Node]]) -> tuple[float, float]:
    """Coordinates; returns the size of the whole."""
    y = 8.0
    for rank in ranks:
        x = 0.0
        for node in rank:
            node.x, node.y = x + node.width / 2, y
            x += node.width + _GAP
        tallest = max((n.height for n in rank), default=0.0)
        for node in rank:
            node.height = node.height if node.kind else tallest
        y += tallest + _RANK
    for sweep in range(_SWEEPS):
        for rank in ranks if sweep % 2 == 0 else reversed(ranks):
            _settle(rank)
    every = [n for rank in ranks for n in rank]
    left = min((n.x - n.width / 2 for n in every), default=0.0) - 8
    for node in every:
        node.x -= left
    return max((n.x + n.width / 2 for n in every), default=0.0) + 8, y


def _settle(rank: list[_Node]) -> None:
    """Move the nodes of a rank towards their neighbours without changing their order or letting them overlap."""
    wanted = []
    for node in rank:
        near = node.above + node.below
        wanted.append(sum(n.x for n in near) / len(near) if near else node.x)
    pushed_right, pushed_left = list(wanted), list(wanted)
    for i in range(1, len(rank)):
        room = (rank[i - 1].width + rank[i].width) / 2 + _GAP
        pushed_right[i] = max(pushed_right[i], pushed_right[i - 1] + room)
    for i in range(len(rank) - 2, -1, -1):
        room = (rank[i + 1].width + rank[i].width) / 2 + _GAP
        pushed_left[i] = min(pushed_left[i], pushed_left[i + 1] - room)
    for node, a, b in zip(rank, pushed_right, pushed_left, strict=True):
        node.x = (a + b) / 2  # both keep the distances, so their mean does


def _edge(node: _Node, target: _Node) -> str:
    """A smooth line from the foot of one node to the head of the next."""
    y = node.y + node.height
    middle = (y + target.y) / 2
    bottom = target.y if target.kind else target.y + target.height
    curve = f"C{node.x:.1f} {middle:.1f} {target.x:.1f} {middle:.1f} {target.x:.1f} {target.y:.1f}"
    return f'<path d="M{node.x:.1f} {y:.1f}{curve}V{bottom:.1f}"/>'


def _box(node: _Node) -> str:
    left = node.x - node.width / 2
    text = "".join(
        f'<text x="{left + 9:.1f}" y="{node.y + 17 + i * _LINE:.1f}"{_class(node, i)}>{escape(line)}</text>'
        for i, line in enumerate(node.lines)
    )
    return (
        f'<g class="{node.kind}"><title>{escape(node.tooltip)}</title>'
        f'<rect x="{left:.1f}" y="{node.y:.1f}" width="{node.width:.1f}" height="{node.height:.1f}" rx="5"/>{text}</g>'
    )


def _class(node: _Node, line: int) -> str:
    return ' class="second"' if line or node.kind == "input" else ""
