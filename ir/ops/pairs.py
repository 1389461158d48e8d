"""Complex numbers: what takes them apart, puts them together, and views their memory.

In memory a complex number is its real part and its imaginary part, one behind the other. Loop kernels compute with the
parts (`ir/ops/complexes.py`); ops that only move elements take complex ones like any other.

Gradients follow PyTorch's convention: that of a complex number is the derivative towards its real part plus i times
the one towards its imaginary part. So a derivative rule of parts is the plain chain rule, and that of a function with a
complex derivative multiplies by its conjugate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from kiln.ir import loops as L
from kiln.ir.graph import Attrs
from kiln.ir.ops.base import Call, Dense, ElementContext, OpDef, OpTypeError, quiet, register, same_types
from kiln.ir.ops.create import full_like
from kiln.ir.types import COMPLEX_DTYPES, TensorType, float32, float64

View = tuple[tuple[int, ...], tuple[int, ...], int]
PARTS: Final = (float32, float64)
"""What complex numbers are made of."""


def joined(re: Any, im: Any) -> Any:
    """The NumPy array of complex numbers with these parts (`re + 1j * im` would spoil infinities)."""
    out = np.empty(np.shape(re), np.result_type(re, np.complex64))
    out.real, out.imag = re, im
    return out


def by_parts(op: Callable[..., Any], z: Any) -> Any:
    """`op`, which is real and linear, of an operand that may be complex."""
    return complex_(op(real(z)), op(imag(z))) if z.ttype.dtype.is_complex else op(z)


def _pointwise(
    name: str, doc: str, infer: Any, ref: Any, expr: Callable[..., L.Expr], arity: int, **rest: Any
) -> OpDef:
    def element(ctx: ElementContext, index: tuple[L.Expr, ...]) -> L.Expr:
        return expr(*(ctx.read(k, index) for k in range(arity)))

    traits = frozenset({"elementwise", "exact", "foldable"})
    return register(OpDef(name, doc, infer, quiet(ref), Dense(element, True), traits=traits, arity=arity, **rest))


def _part_type(name: str) -> Any:
    def rule(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
        t = same_types(name, operands, COMPLEX_DTYPES)
        return (replace(t, dtype=t.dtype.part),)

    return rule


def _pair_type(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    t = same_types("complex", operands, PARTS)
    return (replace(t, dtype=t.dtype.paired),)


def _complex_jvp(call: Call, re: Any, im: Any) -> Sequence[Any]:
    if re is None and im is None:
        return (None,)
    zero = full_like(im if re is None else re, 0.0)
    return (complex_(zero if re is None else re, zero if im is None else im),)


real: Final[OpDef] = _pointwise(
    "real", "The real part.", _part_type("real"), lambda xp, z: z.real.copy(), lambda z: L.apply("real", z), 1,
    vjp=lambda call, g: (complex_(g, full_like(g, 0.0)),),
    jvp=lambda call, t: (None if t is None else real(t),),
)  # fmt: skip
imag: Final[OpDef] = _pointwise(
    "imag", "The imaginary part.", _part_type("imag"), lambda xp, z: z.imag.copy(), lambda z: L.apply("imag", z), 1,
    vjp=lambda call, g: (complex_(full_like(g, 0.0), g),),
    jvp=lambda call, t: (None if t is None else imag(t),),
)  # fmt: skip
complex_: Final[OpDef] = _pointwise(
    "complex", "complex(re, im): the complex number of two parts.", _pair_type,
    lambda xp, re, im: joined(re, im), lambda re, im: L.apply("complex", re, im), 2,
    vjp=lambda call, g: (real(g) if call.needs[0] else None, imag(g) if call.needs[1] else None),
    jvp=_complex_jvp,
)  # fmt: skip
conj: Final[OpDef] = _pointwise(
    "conj", "The conjugate: the sign bit of the imaginary part flipped.",
    lambda operands, attrs: (same_types("conj", operands, COMPLEX_DTYPES),),
    lambda xp, z: joined(z.real, -z.imag),
    lambda z: L.apply("complex", L.apply("real", z), L.apply("neg", L.apply("imag", z))), 1,
    vjp=lambda call, g: (conj(g),), jvp=lambda call, t: (None if t is None else conj(t),),
)  # fmt: skip


# --------------------------------------------------------------------------------------------- views


def _as_real_types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    t = same_types("view_as_real", operands, COMPLEX_DTYPES)
    return (TensorType(t.dtype.part, (*t.shape, 2), t.device),)


def _as_real_element(ctx: ElementContext, index: tuple[L.Expr, ...]) -> L.Expr:
    z, which = ctx.read(0, index[:-1]), index[-1]
    if isinstance(which, L.Const):
        return L.apply("imag" if which.value else "real", z)
    return L.select(L.apply("eq", which, L.index(0)), L.apply("real", z), L.apply("imag", z))


def _as_real_view(shape: tuple[int, ...], strides: tuple[int, ...], offset: int, attrs: Attrs) -> View:
    return (*shape, 2), (*(2 * s for s in strides), 1), 2 * offset


view_as_real: Final[OpDef] = register(
    OpDef(
        "view_as_real",
        "view_as_real(z): the same memory with a last dimension of size 2: real part, imaginary part.",
        _as_real_types,
        lambda xp, z: np.stack([z.real, z.imag], -1),
        Dense(_as_real_element),
        vjp=lambda call, g: (view_as_complex(g),),
        jvp=lambda call, t: (None if t is None else view_as_real(t),),
        view=_as_real_view,
        traits=frozenset({"view", "exact", "foldable"}),
        arity=1,
    )
)


def _as_complex_types(operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    t = same_types("view_as_complex", operands, PARTS)
    if not t.rank or t.shape[-1] != 2:
        raise OpTypeError("view_as_complex", f"the last dimension of {t} does not have size 2")
    return (TensorType(t.dtype.paired, t.shape[:-1], t.device),)


def _as_complex_element(ctx: ElementContext, index: tuple[L.Expr, ...]) -> L.Expr:
    return L.apply("complex", *(ctx.read(0, (*index, L.index(k))) for k in (0, 1)))


def _as_complex_view(shape: tuple[int, ...], strides: tuple[int, ...], offset: int, attrs: Attrs) -> View | None:
    if strides[-1] != 1 or offset % 2 or any(s % 2 for s, n in zip(strides[:-1], shape[:-1], strict=True) if n != 1):
        return None
    return shape[:-1], tuple(s // 2 for s in strides[:-1]), offset // 2


view_as_complex: Final[OpDef] = register(
    OpDef(
        "view_as_complex",
        "view_as_complex(a): the same memory as complex numbers; a's last dimension has size 2. Copied where strides "
        "can't say it.",
        _as_complex_types,
        lambda xp, a: joined(a[..., 0], a[..., 1]),
        Dense(_as_complex_element),
        vjp=lambda call, g: (view_as_real(g),),
        jvp=lambda call, t: (None if t is None else view_as_complex(t),),
        view=_as_complex_view,
        traits=frozenset({"view", "exact", "foldable"}),
        arity=1,
    )
)

INVERSES: Final = {"view_as_real": "view_as_complex", "view_as_complex": "view_as_real"}
"""The views that show all elements and nothing else, by name, with what undoes them."""
