"""One graph for many sizes: what two recorded graphs have in common.

Two graphs that were recorded of one function, for arguments of different sizes, agree but for numbers: dimensions,
sizes among attributes, values of fills, literal data. `generalise` puts a name for each pair of numbers that differ
(the least general generalisation of Plotkin, A note on inductive generalization, Machine Intelligence 5, 1970). Whether
a third graph is an instance is decided by `match`, number by number: there is one choice of numbers for the names that
makes the two equal, or there is none. So nothing has to be known, or guessed, of how sizes follow from each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias, cast

from kiln.ir.graph import Attrs, AttrValue, Graph, GraphBuilder, Operation, Value, rebuild
from kiln.ir.ops.base import OPS, Dense, OpDef, OpTypeError, Reduction, Scatter, ints_attr, shape_attr
from kiln.ir.ops.scan import SCANS
from kiln.ir.passes.cse import structural_key
from kiln.ir.types import Dim, Sym, TensorType, product, row_major, size_of

Numbers: TypeAlias = "dict[str, AttrValue]"
"""What names stand for in one instance: sizes, values of fills, and data of constants."""
Fill: TypeAlias = "tuple[str, TensorType]"
"""A name that stands for a value or for data, and the type of a tensor that holds it."""
Strides: TypeAlias = "tuple[Dim, ...] | None"

_SIZES: Final = {"slice": ("starts", "stops"), "slice_scatter": ("starts", "stops")}
"""Attributes that hold sizes; of other ops their `shape` does."""
_LITERALS: Final = frozenset({("full", "value"), ("constant", "data")})
"""Attributes that hold values of tensors: where they are names, they become inputs."""
_TEMPLATES: Final = frozenset(
    {"matmul", "addmm", "argsort", "topk", "searchsorted", "attention", "attention_backward", *SCANS}
)
"""Templates that take sizes at run time, in any relation."""
_VIEWS: Final = frozenset({"reshape", "permute", "broadcast", "slice", "detach"})
"""Views whose strides can be symbolic."""
_CONVOLUTIONS: Final = frozenset({"conv2d", "conv2d_input", "conv2d_weight"})
_IMAGES: Final = {"conv2d": (0, 2), "conv2d_input": (0, 2), "conv2d_weight": (0, 1)}
"""Which operands and results of convolutions are images: their sizes may change, but for the number of channels."""
_BY_RECORD: Final = frozenset({"cat", "slice", "slice_scatter", *_CONVOLUTIONS})
"""Ops whose type rules add and divide sizes: of symbolic ones, the records say what comes out."""


class Different(Exception):
    """Two graphs have no common form that could be compiled: the message says where."""


class OtherGraph(Different):
    """Other operations were recorded: the graphs are of different kinds."""


class Names:
    """The names for pairs of numbers, the first of one graph and the second of the other."""

    def __init__(self) -> None:
        self._sizes: dict[tuple[int, int], Dim] = {}
        self._inputs: list[tuple[int, int, Sym]] = []
        self._values: dict[tuple[object, object], Sym] = {}

    def size(self, a: Dim, b: Dim, of_input: bool = False) -> Dim:
        """What stands for two sizes: themselves where they are equal, else a name; of sizes that are no input's, a
        product of inputs' names where one fits."""
        assert isinstance(a, int) and isinstance(b, int)
        if a == b:
            return a
        found = self._sizes.get((a, b))
        if found is None:
            found = None if of_input else self._product(a, b)
            if found is None:
                found = Sym(f"n{len(self._sizes)}", max(a, b))
                if of_input:
                    self._inputs.append((a, b, found))
            self._sizes[a, b] = found
        return found

    def _product(self, a: int, b: int) -> Dim | None:
        for x, y, name in self._inputs:
            times = b // y if y else a // x
            if times > 1 and (times * x, times * y) == (a, b):
                return product((times, name))
        for k, (x, y, name) in enumerate(self._inputs):
            for u, v, other in self._inputs[k:]:
                times = (b // (y * v) if y * v else 0) or (a // (x * u) if x * u else 0)
                if times and (times * x * u, times * y * v) == (a, b):
                    return product((times, name, other))
        return None

    def value(self, a: AttrValue, b: AttrValue) -> AttrValue:
        """What stands for the values of two fills, or for the data of two constants."""
        key = structural_key(a), structural_key(b)
        if key[0] == key[1]:
            return a
        return self._values.setdefault(key, Sym(f"v{len(self._values)}"))


# ----------------------------------------------------------------------------------------- two graphs


def generalise(a: Graph, b: Graph, names: Names, outermost: bool = True) -> Graph:
    """The graph that both are instances of; Different when there is none. Not `outermost`: the graph of a branch."""
    if (len(a.inputs), len(a.operations), a.aliases) != (len(b.inputs), len(b.operations), b.aliases):
        raise OtherGraph("other operations were recorded")
    builder = GraphBuilder(a.name)
    mapped: dict[Value, Value] = {}
    twins: dict[Value, Value] = {}
    for u, v in zip(a.inputs, b.inputs, strict=True):
        mapped[u], twins[v] = builder.input(_common_type(u.type, v.type, names, outermost), u.hint), u
    for p, q in zip(a.operations, b.operations, strict=True):
        if p.op is not q.op or p.operands != tuple([twins[v] for v in q.operands]):
            raise OtherGraph(f"{q.op.name} stands where {p.op.name} was recorded before")
        attrs = _common_attrs(p, q, names)
        types = [_common_type(r.type, s.type, names) for r, s in zip(p.results, q.results, strict=True)]
        _check(p, [mapped[v].type for v in p.operands], types, attrs)
        made = builder.append(p.op, [mapped[v] for v in p.operands], attrs, types, p.loc)
        mapped.update(zip(p.results, made, strict=True))
        twins.update(zip(q.results, p.results, strict=True))
    if a.outputs != tuple([twins[v] for v in b.outputs]):
        raise OtherGraph("other results were recorded")
    return builder.build([mapped[v] for v in a.outputs], a.aliases)


def aligned(graph: Graph, like: Graph) -> Graph | None:
    """`graph` with the operations of `like`; None where that can't be. What it lacks may be broadcasts of what has the
    shape already (with a size of one, none was recorded), and on the way back the sums over them: over sizes of one,
    where they change no bit."""
    if [op.op for op in graph.operations] == [op.op for op in like.operations]:
        return graph
    if len(graph.operations) >= len(like.operations) or len(graph.inputs) != len(like.inputs):
        return None
    builder, own = rebuild(graph)
    twins = {u: own[v] for u, v in zip(like.inputs, graph.inputs, strict=True)}
    sums: dict[Value, Value] = {}
    same: dict[Value, Value] = {}  # what was put in, as what it is
    rest = list(reversed(graph.operations))
    for q in like.operations:
        operands = [twins[v] for v in q.operands]
        wanted = [same.get(v, v) for v in operands]
        p = rest[-1] if rest and (rest[-1].op, len(rest[-1].results)) == (q.op, len(q.results)) else None
        if p is not None and [same.get(v, v) for v in map(own.__getitem__, p.operands)] == wanted:
            rest.pop()
            made = builder.clone(p, operands)
            own.update(zip(p.results, made, strict=True))
        else:
            attrs = _identity(q, operands[0].type, sums.get(operands[0])) if operands else None
            if attrs is None:
                return None
            made = builder.add(q.op, operands, attrs, q.loc)
            if q.op.name == "sum":
                sums[made[0]] = operands[0]
            else:
                whole = sums.get(operands[0], operands[0])
                same[made[0]] = same.get(whole, whole)
        twins.update(zip(q.results, made, strict=True))
    return None if rest else builder.build([own[v] for v in graph.outputs], graph.aliases)


def _identity(q: Operation, t: TensorType, summed: Value | None) -> Attrs | None:
    """The attributes with which an operation like `q` changes nothing of an operand of type `t`. `summed`: what that is
    the sum of, if it is one that was put in."""
    dims, rank = tuple(range(t.rank)), t.rank
    if q.op.name == "broadcast" and len(shape_attr(q.attrs, "shape")) == rank and ints_attr(q.attrs, "dims") == dims:
        return {"shape": t.shape, "dims": q.attrs["dims"]}
    if q.op.name == "sum" and all(d < t.rank and t.shape[d] == 1 for d in ints_attr(q.attrs, "dims")):
        return {"dims": q.attrs["dims"]}
    if q.op.name == "reshape" and summed is not None:
        return {"shape": summed.type.shape}
    return None


def _common_type(a: TensorType, b: TensorType, names: Names, of_input: bool = False) -> TensorType:
    if (a.dtype, a.rank, a.device) != (b.dtype, b.rank, b.device):
        raise Different(f"{b} stands where {a} was recorded before")
    return TensorType(
        a.dtype, tuple(names.size(m, n, of_input) for m, n in zip(a.shape, b.shape, strict=True)), a.device
    )


def _common_attrs(p: Operation, q: Operation, names: Names) -> Attrs:
    found: dict[str, AttrValue] = {}
    for key, a in p.attrs.items():
        b = q.attrs.get(key)
        if (p.op.name, key) in _LITERALS and type(a) is type(b):
            found[key] = names.value(a, b)
        elif (
            key in _SIZES.get(p.op.name, ("shape",))
            and isinstance(a, tuple)
            and isinstance(b, tuple)
            and len(a) == len(b)
        ):
            found[key] = tuple(names.size(cast("Dim", m), cast("Dim", n)) for m, n in zip(a, b, strict=True))
        elif structural_key(a) == structural_key(b):
            found[key] = a
        elif p.op.name == "cond" and isinstance(a, Graph) and isinstance(b, Graph):
            found[key] = generalise(a, b, names, False)
        else:
            raise Different(f"{key} of {p.op.name} was {_told(a)}, and is {_told(b)}")
    if p.attrs.keys() != q.attrs.keys():
        raise OtherGraph(f"{p.op.name} has other attributes")
    return found


def _told(value: AttrValue) -> str:
    return "another graph" if isinstance(value, Graph) else str(value)


def _check(p: Operation, operands: Sequence[TensorType], results: Sequence[TensorType], attrs: Attrs) -> None:
    """Different, unless the operation can be compiled for these types."""
    sizes = [d for t in (*operands, *results) for d in t.shape]
    sizes += [d for key in _SIZES.get(p.op.name, ("shape",)) if key in attrs for d in shape_attr(attrs, key)]
    if not any(isinstance(d, Sym) for d in sizes):
        return
    op = p.op
    assert isinstance(op, OpDef)
    scatter = isinstance(op.lower, Scatter) and "steps" not in attrs
    known = isinstance(op.lower, Dense | Reduction) or op.name in (*_TEMPLATES, "constant", "cond")
    if op.name in _CONVOLUTIONS:
        types = enumerate((*operands, *results))
        fixed = [d for k, t in types for d in (t.shape[1:2] if k in _IMAGES[op.name] else t.shape)]
        known = all(isinstance(d, int) for d in fixed)
    if op.view is not None and op.name not in _VIEWS:
        known = False
    if not known and not scatter:
        raise Different(f"{op.name} is compiled for known sizes only")
    if op.name in ("full", "constant") or op.name in _BY_RECORD:
        return
    try:
        inferred = op.infer_types(operands, attrs)
    except OpTypeError as error:
        raise Different(f"{op.name} can't take symbolic sizes here: {error.message}") from None
    if inferred != tuple(results):
        raise Different(f"the sizes of {op.name} follow from its operands in a way that is not known")


def common_strides(a: Strides, b: Strides, shapes: Sequence[Sequence[Dim]], names: Names) -> Strides:
    """The strides of an input of both graphs, which has these shapes in them. Along one element any stride will do."""
    if a is None and b is None:
        return None
    found: list[Dim] = []
    for m, n, p, q in zip(_told_apart(a, shapes[0]), _told_apart(b, shapes[1]), *shapes, strict=True):
        found.append(n if p == 1 else m if q == 1 else names.size(m, n))
    return tuple(found)


def _told_apart(strides: Strides, shape: Sequence[Dim]) -> tuple[Dim, ...]:
    return row_major(tuple(shape)) if strides is None else strides


# ------------------------------------------------------------------------------------------ instances


def match(general: Graph, graph: Graph, numbers: Numbers) -> Numbers | None:
    """For which numbers `general` is `graph`, beyond those that are known already; None if for none."""
    if (len(general.inputs), len(general.operations), general.aliases) != (
        len(graph.inputs),
        len(graph.operations),
        graph.aliases,
    ):
        return None
    found = dict(numbers)
    twins: dict[Value, Value] = {}
    for u, v in zip(general.inputs, graph.inputs, strict=True):
        if not _match_type(u.type, v.type, found):
            return None
        twins[v] = u
    for p, q in zip(general.operations, graph.operations, strict=True):
        if p.op is not q.op or p.operands != tuple([twins[v] for v in q.operands]) or p.attrs.keys() != q.attrs.keys():
            return None
        literal = _literal(p)
        for key, a in p.attrs.items():
            if literal is not None and a is literal:
                known = found.setdefault(literal.name, q.attrs[key])
                fits = structural_key(known) == structural_key(q.attrs[key])
            else:
                fits = _match_attr(a, q.attrs[key], found)
            if not fits:
                return None
        for r, s in zip(p.results, q.results, strict=True):
            if not _match_type(r.type, s.type, found):
                return None
            twins[s] = r
    return found if general.outputs == tuple([twins[v] for v in graph.outputs]) else None


def _match_type(general: TensorType, t: TensorType, found: Numbers) -> bool:
    if general.dtype is not t.dtype or general.rank != t.rank or general.device != t.device:
        return False
    return all(match_size(a, b, found) for a, b in zip(general.shape, t.shape, strict=True))


def match_size(general: Dim, size: Dim, found: Numbers) -> bool:
    """Whether a size is the general one; a name that is met for the first time is entered into `found`."""
    if isinstance(general, int):
        return general == size
    if "*" not in general.name:
        return found.setdefault(general.name, size) == size
    return size_of(general, cast("Mapping[str, int]", found)) == size


def _match_attr(general: AttrValue, value: AttrValue, found: Numbers) -> bool:
    if isinstance(general, Sym):
        return type(value) is int and match_size(general, value, found)
    if isinstance(general, Graph) and isinstance(value, Graph):
        inside = match(general, value, found)
        found.update(inside or {})
        return inside is not None
    if isinstance(general, tuple) and isinstance(value, tuple) and len(general) == len(value):
        return all(_match_attr(a, b, found) for a, b in zip(general, value, strict=True))
    return structural_key(general) == structural_key(value)


def match_strides(general: Strides, strides: Strides, shape: Sequence[Dim], found: Numbers) -> bool:
    """Whether an input of this shape, with these strides (None: contiguous), lies as code for `general` reads it."""
    if general is None:
        return strides is None
    places = zip(general, _told_apart(strides, shape), shape, strict=True)
    return all(match_size(a, b, found) or n == 1 or 0 in shape for a, b, n in places)


def instance(general: Graph, numbers: Numbers) -> Graph:
    """The graph that `general` is for these numbers."""
    sizes = cast("Mapping[str, int]", numbers)

    def number(value: AttrValue) -> AttrValue:
        if isinstance(value, Sym):
            return numbers[value.name] if value.name in numbers else size_of(value, sizes)
        if isinstance(value, Graph):
            return instance(value, numbers)
        return tuple(map(number, value)) if isinstance(value, tuple) else value

    builder = GraphBuilder(general.name)
    mapped = {v: builder.input(v.type.at(sizes), v.hint) for v in general.inputs}
    for op in general.operations:
        attrs = {key: number(value) for key, value in op.attrs.items()}
        types = [r.type.at(sizes) for r in op.results]
        made = builder.append(op.op, [mapped[v] for v in op.operands], attrs, types, op.loc)
        mapped.update(zip(op.results, made, strict=True))
    return builder.build([mapped[v] for v in general.outputs], general.aliases)


def lifted(general: Graph) -> tuple[Graph, list[Fill]]:
    """`general` with further inputs instead of the fills and constants whose contents are names, those in branches too:
    a fill is one without dimensions."""
    fills = _fills(general)
    return (_holding(general, fills), fills) if fills else (general, [])


def _fills(graph: Graph) -> list[Fill]:
    """What a graph and its branches have names for, each once."""
    found: dict[Fill, None] = {}
    for op in graph.operations:
        name = _literal(op)
        if name is not None:
            found[_fill(op, name)] = None
        for inner in op.graphs():
            found.update(dict.fromkeys(_fills(inner)))
    return list(found)


def _fill(op: Operation, name: Sym) -> Fill:
    t = op.result.type
    return name.name, TensorType(t.dtype, ()) if op.op.name == "full" else t


def _holding(graph: Graph, fills: Sequence[Fill]) -> Graph:
    """`graph` with further inputs that hold these."""
    builder, mapped = rebuild(graph)
    held = {fill: builder.input(fill[1], fill[0]) for fill in fills}
    for op in graph.operations:
        name = _literal(op)
        inner = dict.fromkeys(fill for g in op.graphs() for fill in _fills(g))
        if name is not None:
            fill, t = _fill(op, name), op.result.type
            value = held[fill]
            if fill[1] != t:
                (value,) = builder.add(OPS["broadcast"], [value], {"shape": t.shape, "dims": ()}, op.loc)
            mapped[op.result] = value
        elif inner:
            attrs = {k: _holding(a, list(inner)) if isinstance(a, Graph) else a for k, a in op.attrs.items()}
            operands = [*[mapped[v] for v in op.operands], *[held[fill] for fill in inner]]
            mapped.update(zip(op.results, builder.add(op.op, operands, attrs, op.loc), strict=True))
        else:
            mapped.update(zip(op.results, builder.clone(op, [mapped[v] for v in op.operands]), strict=True))
    return builder.build([mapped[v] for v in graph.outputs], graph.aliases)


def _literal(op: Operation) -> Sym | None:
    """The name that stands for what an operation gives."""
    key = {"full": "value", "constant": "data"}.get(op.op.name)
    found = None if key is None else op.attrs[key]
    return found if isinstance(found, Sym) else None
