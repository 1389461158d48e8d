"""Jacobians, Hessians, and their products with vectors, of functions of tensors: PyTorch's `autograd.functional`.

Each takes `func` and its inputs (a tensor or a tuple of them) and gives results of the same kind: tensors for tensors,
tuples for tuples. `create_graph` puts results on the tape; `strict` makes a GradError of an output that does not depend
on an input, for which otherwise zeros are given. Derivatives of products go through the tape twice: jvp is the gradient
of the linear map v -> vjp(v) (Townsend, 2017: "A new trick for calculating Jacobian vector products").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from kiln import creation
from kiln import functional as F
from kiln.autograd.backward import grad
from kiln.autograd.grad_mode import enable_grad
from kiln.errors import ArgumentError, GradError, InvalidValueError, ShapeError
from kiln.tensor import Tensor
from kiln.vmap import vmap

__all__ = ["hessian", "hvp", "jacobian", "jvp", "vhp", "vjp"]

Tensors: TypeAlias = "Tensor | tuple[Tensor, ...]"


def _tuple(x: Any, what: str, op: str) -> tuple[Tensor, ...]:
    items = tuple(x) if isinstance(x, (tuple, list)) else (x,)
    for t in items:
        if not isinstance(t, Tensor):
            raise ArgumentError(f"{what} must be tensors, not {type(t).__name__}", op=op)
    return items


def _plain(items: Sequence[Any], like: Any) -> Any:
    """One tensor where one was given."""
    return tuple(items) if isinstance(like, (tuple, list)) else items[0]


def _fresh(inputs: Sequence[Tensor], create_graph: bool) -> tuple[Tensor, ...]:
    """Inputs to differentiate by: with their history if results are to have one."""
    return tuple(
        [F.view(t, t.shape) if create_graph and t.requires_grad else t.detach().requires_grad_() for t in inputs]
    )


def _call(op: str, func: Callable[..., Any], inputs: Sequence[Tensor]) -> tuple[Any, tuple[Tensor, ...]]:
    returned = func(*inputs)
    return returned, _tuple(returned, "the results of the function", op)


def _vectors(op: str, v: Any, like: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """v, or 1 for a single output of one element."""
    if v is None:
        if len(like) != 1 or like[0].numel() != 1:
            raise GradError("v may be left out only for one tensor of one element", op=op, fix="pass v")
        return (creation.ones_like(like[0]),)
    vectors = _tuple(v, "v", op)
    if [t.shape for t in vectors] != [t.shape for t in like]:
        raise ShapeError("v does not fit", op=op, operands=[t.ttype for t in (*like, *vectors)])
    return vectors


def _grads(
    op: str,
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    v: Sequence[Tensor | None] | None,
    *,
    keep: bool,
    strict: bool,
    retain: bool = True,
) -> tuple[Tensor, ...]:
    """Gradients with zeros where nothing depends."""
    pairs = [(t, None if v is None else v[k]) for k, t in enumerate(outputs) if t.requires_grad]
    found: Sequence[Tensor | None] = [None] * len(inputs)
    if pairs:
        found = grad(
            [t for t, _ in pairs], inputs, [g for _, g in pairs], retain_graph=retain, create_graph=keep,
            allow_unused=True,
        )  # fmt: skip
    if strict and any(g is None for g in found):
        raise GradError("an output does not depend on an input", op=op, fix="strict=False gives zeros")
    return tuple([creation.zeros_like(x) if g is None else g for g, x in zip(found, inputs, strict=True)])


def _finished(tensors: Sequence[Tensor], create_graph: bool) -> list[Tensor]:
    return [t if create_graph else t.detach() for t in tensors]


def vjp(
    func: Callable[..., Any],
    inputs: Tensors,
    v: Tensors | None = None,
    create_graph: bool = False,
    strict: bool = False,
) -> tuple[Any, Any]:
    """(func(*inputs), v times the Jacobian): `v` is like the outputs, the product like the inputs."""
    with enable_grad():
        given = _fresh(_tuple(inputs, "inputs", "vjp"), create_graph)
        returned, outputs = _call("vjp", func, given)
        product = _grads("vjp", outputs, given, _vectors("vjp", v, outputs), keep=create_graph, strict=strict)
    return _plain(_finished(outputs, create_graph), returned), _plain(_finished(product, create_graph), inputs)


def jvp(
    func: Callable[..., Any],
    inputs: Tensors,
    v: Tensors | None = None,
    create_graph: bool = False,
    strict: bool = False,
) -> tuple[Any, Any]:
    """(func(*inputs), the Jacobian times v): `v` is like the inputs, the product like the outputs."""
    with enable_grad():
        given = _fresh(_tuple(inputs, "inputs", "jvp"), create_graph)
        vectors = _vectors("jvp", v, given)
        returned, outputs = _call("jvp", func, given)
        seeds = [creation.zeros_like(t, requires_grad=True) for t in outputs]
        linear = _grads("jvp", outputs, given, seeds, keep=True, strict=strict)
        product = _grads("jvp", linear, seeds, vectors, keep=create_graph, strict=strict)
    return _plain(_finished(outputs, create_graph), returned), _plain(_finished(product, create_graph), returned)


def jacobian(
    func: Callable[..., Any],
    inputs: Tensors,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    strategy: str = "reverse-mode",
) -> Any:
    """The derivative of every output element by every input element: [*output shape, *input shape], nested in a tuple
    for each of several outputs, and in one for each of several inputs. The strategy is "reverse-mode" (one walk back,
    with a batch of gradients) or "forward-mode" (one call with a batch of tangents; with `vectorize`, which changes
    nothing else)."""
    if strategy == "forward-mode":
        return _forward(func, inputs, create_graph, strict, vectorize)
    if strategy != "reverse-mode":
        raise InvalidValueError(f"the strategy is {strategy!r}", op="jacobian", fix='"reverse-mode" or "forward-mode"')
    with enable_grad():
        given = _fresh(_tuple(inputs, "inputs", "jacobian"), create_graph)
        returned, outputs = _call("jacobian", func, given)
        rows = [_rows(out, given, create_graph, strict) for out in outputs]
    return _plain([_plain(_finished(row, create_graph), inputs) for row in rows], returned)


def _rows(out: Tensor, inputs: Sequence[Tensor], create_graph: bool, strict: bool) -> list[Tensor]:
    """The Jacobian of one output by each input."""

    def row(seed: Tensor) -> tuple[Tensor, ...]:
        return _grads("jacobian", [out], inputs, [seed], keep=create_graph, strict=strict)

    count = out.numel()
    seeds = F.reshape(creation.eye(count, dtype=out.dtype), (count, *out.shape))
    columns = vmap(row)(seeds)
    return [F.reshape(c, (*out.shape, *x.shape)) for c, x in zip(columns, inputs, strict=True)]


def _forward(func: Callable[..., Any], inputs: Tensors, create_graph: bool, strict: bool, vectorize: bool) -> Any:
    """`jacobian` in forward mode."""
    if not vectorize or strict:
        raise InvalidValueError("forward mode takes vectorize=True and strict=False", op="jacobian")
    from kiln.transforms import jacfwd  # lies above this file

    with enable_grad():
        given = _fresh(_tuple(inputs, "inputs", "jacobian"), create_graph)
        found = jacfwd(func, tuple(range(len(given))))(*given)
    several = found and isinstance(found[0], tuple)
    rows = [_plain(_finished(row, create_graph), inputs) for row in (found if several else (found,))]
    return tuple(rows) if several else rows[0]


def hessian(
    func: Callable[..., Any],
    inputs: Tensors,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    outer_jacobian_strategy: str = "reverse-mode",
) -> Any:
    """The second derivatives of a function with one output of one element: the Jacobian of its gradient."""

    def gradient(*given: Tensor) -> Any:
        row = jacobian(lambda *x: _scalar("hessian", func(*x)), given, create_graph=True, strict=strict)
        return row if isinstance(inputs, (tuple, list)) else row[0]

    return jacobian(gradient, inputs, create_graph, strict, vectorize, outer_jacobian_strategy)


def _scalar(op: str, out: Any) -> Tensor:
    if not isinstance(out, Tensor) or out.numel() != 1:
        raise GradError("the function must return one tensor of one element", op=op)
    return F.reshape(out, ())


def vhp(
    func: Callable[..., Any],
    inputs: Tensors,
    v: Tensors | None = None,
    create_graph: bool = False,
    strict: bool = False,
) -> tuple[Any, Any]:
    """(func(*inputs), v times the Hessian), for a function with one output of one element."""
    with enable_grad():
        given = _fresh(_tuple(inputs, "inputs", "vhp"), create_graph)
        vectors = _vectors("vhp", v, given)
        out = _scalar("vhp", func(*given))
        first = _grads("vhp", [out], given, None, keep=True, strict=strict)
        product = _grads("vhp", first, given, vectors, keep=create_graph, strict=strict)
    return _finished([out], create_graph)[0], _plain(_finished(product, create_graph), inputs)


def hvp(
    func: Callable[..., Any],
    inputs: Tensors,
    v: Tensors | None = None,
    create_graph: bool = False,
    strict: bool = False,
) -> tuple[Any, Any]:
    """(func(*inputs), the Hessian times v): the Hessian of a twice differentiable function is symmetric, so this is
    `vhp`, which is cheaper than the way through `jvp`."""
    return vhp(func, inputs, v, create_graph, strict)
