"""Structured control flow: `cond`, `while_loop` and `scan` hold graphs, and run them as the data say.

What a nested graph needs of the outer one enters as an operand. The graphs are functions: what is written inside is a
result. `detach` ends the way of a gradient, inside such graphs as on eager's tape.

Conditionals and loops with functions as arguments are those of JAX (`lax.cond`, `lax.while_loop`, `lax.scan`) and of
torch's higher-order ops; as operations of an SSA program, those of MLIR's `scf`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from kiln.ir.graph import Attrs, Graph, Value
from kiln.ir.loops import Expr
from kiln.ir.ops.base import OPS, Call, Control, Dense, ElementContext, OpDef, OpTypeError, Vjp, ints_attr, register
from kiln.ir.types import Dim, TensorType, bool_

TRUTH: Final = TensorType(bool_, ())


def nested(attrs: Attrs, key: str) -> Graph:
    """The graph that an operation of control flow holds as `key`."""
    graph = attrs[key]
    assert isinstance(graph, Graph)
    return graph


def number(attrs: Attrs, key: str) -> int:
    """An attribute that is an int."""
    value = attrs[key]
    assert isinstance(value, int)
    return value


def _told(types: Sequence[TensorType]) -> str:
    return f"({', '.join(map(str, types))})"


def _takes(op: str, what: str, graph: Graph, given: Sequence[TensorType]) -> None:
    """OpTypeError unless `graph` takes operands of the types `given`."""
    wanted = [v.type for v in graph.inputs]
    if len(wanted) != len(given):
        raise OpTypeError(op, f"{what} takes {len(wanted)} operands and is given {len(given)}", "value")
    for k, (a, b) in enumerate(zip(wanted, given, strict=True)):
        if a != b:
            kind = "dtype" if a.dtype is not b.dtype else "shape"
            raise OpTypeError(op, f"operand {k} of {what} is a {a}, and {b} is given", kind)


def _types(values: Sequence[Value]) -> tuple[TensorType, ...]:
    return tuple(v.type for v in values)


def _same(op: str, what: str, found: Sequence[TensorType], wanted: Sequence[TensorType]) -> None:
    if tuple(found) != tuple(wanted):
        differing = [a.dtype is not b.dtype for a, b in zip(found, wanted, strict=False)]
        kind = "value" if len(found) != len(wanted) else "dtype" if any(differing) else "shape"
        raise OpTypeError(op, f"{what} {_told(found)}, which should be {_told(wanted)}", kind)


# --------------------------------------------------------------------------------------------- cond


def _cond_types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    then, other = nested(attrs, "then"), nested(attrs, "else")
    if not operands or operands[0] != TRUTH:
        raise OpTypeError("cond", f"takes a predicate of type {TRUTH}, not {_told(operands[:1])}", "dtype")
    _takes("cond", "then", then, operands[1:])
    _takes("cond", "else", other, operands[1:])
    _same("cond", "else gives", _types(other.outputs), _types(then.outputs))
    if not then.outputs:
        raise OpTypeError("cond", "its branches give no results", "value")
    return _types(then.outputs)


def _reference(name: str) -> Callable[..., Any]:
    def run(xp: Any, *operands: Any, **attrs: Any) -> Any:
        from kiln.ir.interpreter import evaluate_ref, follow  # which need the ops

        def stack(parts: Sequence[Any], t: TensorType) -> Any:
            return np.stack(parts) if parts else np.zeros(t.static_shape(), t.dtype.numpy)

        found = follow(OPS[name], operands, attrs, evaluate_ref, bool, lambda x, k: x[k], stack)
        return tuple(np.array(x) for x in found)

    return run


def _rule(name: str) -> Vjp:
    def vjp(call: Call, *grads: Any) -> Sequence[Any]:
        from kiln.ir.passes import flow, rewind  # which need the ops

        rules: dict[str, Vjp] = {"cond": flow.cond, "scan": flow.scan, "while_loop": rewind.while_loop}
        return rules[name](call, *grads)

    return vjp


cond: Final[OpDef] = register(
    OpDef(
        "cond",
        "cond(pred, *operands; then, else): the results of one of two graphs, which take the operands. `pred` is a "
        "bool without dimensions. The other graph is not run.",
        _cond_types,
        _reference("cond"),
        Control("cond"),
        vjp=_rule("cond"),
        traits=frozenset({"folds"}),
    )
)


# --------------------------------------------------------------------------------------- while_loop


def _while_types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    test, body = nested(attrs, "test"), nested(attrs, "body")
    carried = len(body.outputs)
    if not carried or carried > len(operands):
        raise OpTypeError("while_loop", f"{len(operands)} operands, of which {carried} are carried", "value")
    _takes("while_loop", "test", test, operands)
    _takes("while_loop", "body", body, operands)
    _same("while_loop", "test gives", _types(test.outputs), (TRUTH,))
    _same("while_loop", "body gives", _types(body.outputs), operands[:carried])
    return tuple(operands[:carried])


while_loop: Final[OpDef] = register(
    OpDef(
        "while_loop",
        "while_loop(*carried, *constants; test, body): `carried` after carried = body(*carried, *constants) as often "
        "as test(*carried, *constants) is true before. As many operands are carried as `body` has results.",
        _while_types,
        _reference("while_loop"),
        Control("while_loop"),
        vjp=_rule("while_loop"),
        traits=frozenset({"folds"}),
    )
)


# --------------------------------------------------------------------------------------------- scan


def slice_type(t: TensorType) -> TensorType:
    """The type of a slice along the first dimension."""
    return TensorType(t.dtype, t.shape[1:], t.device)


def stacked_type(t: TensorType, length: Dim) -> TensorType:
    """The type of `length` values in a row."""
    return TensorType(t.dtype, (length, *t.shape), t.device)


def scan_parts(operands: Sequence[Any], attrs: Attrs) -> tuple[Sequence[Any], Sequence[Any], Sequence[Any]]:
    """The operands of a scan: carried, sliced, constant ones."""
    carried = number(attrs, "carried")
    after = carried + number(attrs, "xs")
    return operands[:carried], operands[carried:after], operands[after:]


def _scan_types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    body, length = nested(attrs, "body"), attrs["length"]
    assert not isinstance(length, (str, float)) and isinstance(attrs["reverse"], bool)
    if isinstance(length, int) and length < 0:
        raise OpTypeError("scan", f"a length of {length}", "value")
    carried, xs, constants = scan_parts(operands, attrs)
    if len(carried) != attrs["carried"] or len(xs) != attrs["xs"]:
        raise OpTypeError("scan", f"{len(operands)} operands do not fit {attrs['carried']} + {attrs['xs']}", "value")
    for t in xs:
        if not t.shape or t.shape[0] != length:
            raise OpTypeError("scan", f"{t} can't be walked along {length} slices of its first dimension")
    _takes("scan", "body", body, [*carried, *map(slice_type, xs), *constants])
    _same("scan", "body carries", _types(body.outputs[: len(carried)]), carried)
    if not body.outputs:
        raise OpTypeError("scan", "its body gives no results", "value")
    stacked = [stacked_type(v.type, length) for v in body.outputs[len(carried) :]]  # type: ignore[arg-type]
    return (*carried, *stacked)


scan: Final[OpDef] = register(
    OpDef(
        "scan",
        "scan(*carried, *xs, *constants; body, carried, xs, length, reverse): for each slice of `xs` along their first "
        "dimension (of `length` slices; from the last one with `reverse`): *carried, *ys = body(*carried, *slices, "
        "*constants). The results are the last carried values, and all ys stacked, each at the place of its slice. "
        "`carried` and `xs` say how many operands are so.",
        _scan_types,
        _reference("scan"),
        Control("scan"),
        vjp=_rule("scan"),
        traits=frozenset({"folds"}),
    )
)

CONTROL: Final = frozenset({"cond", "while_loop", "scan"})


# ------------------------------------------------------------------------------------------- detach


def _detach_element(ctx: ElementContext, index: tuple[Expr, ...]) -> Expr:
    return ctx.read(0, index)


def _no_gradient(call: Call, g: Any) -> tuple[None]:
    return (None,)


def _given_back(call: Call, g: Any) -> list[Any]:
    from kiln.ir.interpreter import run  # which needs the ops

    found, saved = ints_attr(call.attrs, "found"), ints_attr(call.attrs, "saved")
    given = [call.results[0] if k < 0 else call.operands[k] for k in saved]
    made = run(nested(call.attrs, "backward"), [g, *given], g)
    rest = [None] * (len(call.operands) - 1 - len(found))
    return [None, *(None if k < 0 else made[k] for k in found), *rest]


through: Final[OpDef] = register(
    OpDef(
        "through",
        "through(y, *inputs, *saved; backward, found, saved, once): y itself. Its gradient goes to `inputs`: those are "
        "the outputs of `backward` that `found` names (-1: there is none), of the gradient and of what `saved` names: "
        "operands and y (-1). `once`: they have no derivatives. Only captured graphs have such operations: they are "
        "gone once gradients were taken.",
        lambda operands, attrs: (operands[0],),
        lambda xp, x, *_, **attrs: xp.asarray(x),
        Dense(_detach_element, pointwise=True),
        vjp=_given_back,
        view=lambda shape, strides, offset, attrs: (shape, strides, offset),
        traits=frozenset({"view"}),
        saved_operands=tuple(range(256)),
        saved_results=(0,),
    )
)

detach: Final[OpDef] = register(
    OpDef(
        "detach",
        "detach(x): x itself, through which no gradient goes.",
        lambda operands, attrs: (operands[0],),
        lambda xp, x: xp.asarray(x),
        Dense(_detach_element, pointwise=True),
        vjp=_no_gradient,
        jvp=_no_gradient,
        view=lambda shape, strides, offset, attrs: (shape, strides, offset),
        traits=frozenset({"view", "exact", "foldable"}),
        arity=1,
    )
)
