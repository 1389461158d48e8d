"""`Tensor`: what a user holds. Storage and slots lie in `base.py`, functions in `F.py`; this file
ties them together, and `__kiln_bind__` is the one gate that every op passes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, cast

from kiln import activation, autograd, differences, dispatch, indexing, inplace, removed, special, spectral
from kiln import complexes as K
from kiln import contraction as C
from kiln import copies as Y
from kiln import distances as D
from kiln import factorizations as Z
from kiln import functional as F
from kiln import gathering as G
from kiln import integers as N
from kiln import movement as M
from kiln import pointwise as P
from kiln import selection as L
from kiln import sorting as O
from kiln import systems as S
from kiln.autograd.methods import GradMethods
from kiln.base import LAYERED, MODES, REQUIRES_GRAD, Operand, TensorBase, install_operators
from kiln.errors import ArgumentError
from kiln.interop import InteropMethods, real_item, truth_of
from kiln.ir import types as T
from kiln.ir.graph import Attrs
from kiln.ir.ops.base import OpDef
from kiln.legacy import Constructed
from kiln.methods import Methods
from kiln.promotion import cast_to
from kiln.random_methods import RandomMethods
from kiln.shape_methods import ShapeMethods

Self = TypeVar("Self", bound="Tensor")


class _Casts(Methods):
    """Methods named like built-in types, kept out of `Tensor` where they would hide those types."""

    __slots__ = ()

    def float(self) -> Tensor:
        """As float32."""
        return cast_to(cast("Tensor", self), T.float32)

    def double(self) -> Tensor:
        """As float64."""
        return cast_to(cast("Tensor", self), T.float64)

    def half(self) -> Tensor:
        """As float16."""
        return cast_to(cast("Tensor", self), T.float16)

    def bfloat16(self) -> Tensor:
        """As bfloat16."""
        return cast_to(cast("Tensor", self), T.bfloat16)

    def cfloat(self) -> Tensor:
        """As complex64."""
        return cast_to(cast("Tensor", self), T.complex64)

    def cdouble(self) -> Tensor:
        """As complex128."""
        return cast_to(cast("Tensor", self), T.complex128)

    def char(self) -> Tensor:
        """As int8 (floats by way of int32)."""
        return cast_to(cast("Tensor", self), T.int8)

    def byte(self) -> Tensor:
        """As uint8 (floats by way of int32)."""
        return cast_to(cast("Tensor", self), T.uint8)

    def short(self) -> Tensor:
        """As int16 (floats by way of int32)."""
        return cast_to(cast("Tensor", self), T.int16)

    def int(self) -> Tensor:
        """As int32: floats are cut towards zero."""
        return cast_to(cast("Tensor", self), T.int32)

    def long(self) -> Tensor:
        """As int64: floats are cut towards zero."""
        return cast_to(cast("Tensor", self), T.int64)

    def bool(self) -> Tensor:
        """As bools: whether nonzero."""
        return cast_to(cast("Tensor", self), T.bool_)


class Tensor(_Casts, GradMethods, InteropMethods, RandomMethods, ShapeMethods, Constructed):
    """An n-dimensional array of one dtype on the CPU, with PyTorch's methods.

    Made by `kiln.tensor`, `kiln.zeros`, `kiln.from_numpy` and so on, or by ops on other tensors.
    """

    __slots__ = ()

    def __kiln_bind__(self, op: OpDef, operands: Sequence[Any], attrs: Attrs) -> tuple[Any, ...]:
        """Apply an op: execute it now, tell the capture if one listens, and the tape if gradients are wanted.

        Compiled and differentiated code reaches tensors through this gate too: there is no other way in.
        """
        recorder = MODES.recorder
        if recorder is None:
            results = dispatch.run(op, operands, attrs, self)
        else:
            results = recorder.execute(op, operands, attrs, self)
            if results[0]._flags & LAYERED:  # what was done instead is recorded
                return results
            if MODES.grad_enabled:
                for t in operands:
                    if t._view is not None:  # its new history is operations of their own, which come before this one
                        autograd.refresh(t)
            recorder.record(op, operands, attrs, results)
        if MODES.grad_enabled:
            for t in operands:
                if t._flags & REQUIRES_GRAD or t._view is not None:
                    autograd.record(op, operands, attrs, results)
                    break
        if op.view is not None and results[0]._buffer is operands[0]._buffer:
            autograd.track_view(op, operands[0], attrs, results[0])
        return results

    # ----------------------------------------------------------------------------------- shape and type

    def size(self, dim: int | None = None) -> Any:
        """The shape, or one size."""
        return self._layout.size if dim is None else self._layout.shape[F.dim_index("size", dim, self.ndim)]

    def stride(self, dim: int | None = None) -> Any:
        """Strides in elements, or one of them."""
        strides = self._layout.strides
        return strides if dim is None else strides[F.dim_index("stride", dim, self.ndim)]

    def storage_offset(self) -> int:
        """Elements between the start of the memory and the first element."""
        self._located("storage_offset()")
        return self._offset

    def data_ptr(self) -> int:
        """Address of the first element."""
        self._located("data_ptr()")
        return self._ptr

    def _located(self, what: str) -> None:
        """Where a tensor lies may differ between calls that are alike in all else."""
        if MODES.recorder is not None:
            MODES.recorder.forbid(self, what)

    def dim(self) -> int:
        """Number of dimensions."""
        return self.ndim

    def numel(self) -> int:
        """Number of elements."""
        return self._layout.numel

    def element_size(self) -> int:
        """Bytes of one element."""
        return self.dtype.itemsize

    def is_contiguous(self, memory_format: Any = None) -> bool:
        """Whether elements lie row-major without gaps; so for every memory format."""
        del memory_format
        return self._layout.contiguous

    def is_floating_point(self) -> bool:
        """Whether the dtype is a floating-point one."""
        return self.dtype.kind == "float"

    def is_complex(self) -> bool:
        """Whether the dtype is a complex one."""
        return self.dtype.is_complex

    def is_signed(self) -> bool:
        """Whether the dtype has negative numbers."""
        return self.dtype.is_signed

    def type_as(self, other: Tensor) -> Tensor:
        """With the dtype of `other`."""
        return self.to(other.dtype)

    @property
    def T(self) -> Tensor:
        """Dimensions in reverse order."""
        return F.permute(self, tuple(reversed(range(self.ndim))))

    @property
    def mT(self) -> Tensor:
        """The last two dimensions exchanged."""
        return F.transpose(self, -2, -1)

    @property
    def H(self) -> Tensor:
        """The conjugate transpose of a matrix."""
        return K.conj(F.t(self))

    @property
    def mH(self) -> Tensor:
        """The last two dimensions exchanged, conjugated."""
        return K.conj(F.transpose(self, -2, -1))

    @property
    def real(self) -> Tensor:
        """The real parts: a view of a complex tensor's memory; a real tensor itself."""
        return K.real(self)

    @real.setter
    def real(self, value: Operand) -> None:
        inplace.copy_(K.real(self), value)

    @property
    def imag(self) -> Tensor:
        """The imaginary parts of a complex tensor: a view of its memory."""
        return K.imag(self)

    @imag.setter
    def imag(self, value: Operand) -> None:
        inplace.copy_(K.imag(self), value)

    def where(self, condition: TensorBase, other: Operand) -> Tensor:
        """`self` where `condition` (bool) holds, else `other`."""
        return F.where(condition, self, other)

    def polygamma(self, n: int) -> Tensor:
        """`kiln.polygamma(n, self)`."""
        return special.polygamma(n, self)

    def polygamma_(self: Self, n: int) -> Self:
        """self[...] = polygamma(n, self)."""
        return cast("Self", inplace.variant(Tensor.polygamma, "polygamma_")(self, n))

    # ------------------------------------------------------------------------- the functions, as methods
    # fmt: off

    add, sub, mul, div, true_divide, pow = F.add, F.sub, F.mul, F.div, F.div, F.pow
    neg, abs, square, sqrt, rsqrt, reciprocal = F.neg, F.abs, F.square, F.sqrt, F.rsqrt, F.reciprocal
    exp, log, tanh, erf, sin, cos = F.exp, F.log, F.tanh, F.erf, F.sin, F.cos
    sigmoid, relu, softmax, log_softmax = F.sigmoid, F.relu, F.softmax, F.log_softmax
    hardshrink, prelu = activation.hardshrink, activation.prelu
    maximum, minimum, clamp = F.maximum, F.minimum, F.clamp
    eq, ne, lt, le, gt, ge = F.eq, F.ne, F.lt, F.le, F.gt, F.ge
    logical_and, logical_or, logical_not = F.logical_and, F.logical_or, F.logical_not
    sum, mean, amax, amin, all, any = F.sum, F.mean, F.amax, F.amin, F.all, F.any
    max, min, argmax, argmin = F.max, F.min, F.argmax, F.argmin
    reshape, view, flatten, squeeze, unsqueeze = F.reshape, F.view, F.flatten, F.squeeze, F.unsqueeze
    permute, transpose, t, expand = F.permute, F.transpose, F.t, F.expand
    clone, contiguous, matmul, mm = F.clone, F.contiguous, F.matmul, F.mm

    split, chunk, tensor_split, unbind, narrow, select = M.split, M.chunk, M.tensor_split, M.unbind, M.narrow, M.select
    hsplit, vsplit, dsplit, unflatten, ravel = M.hsplit, M.vsplit, M.dsplit, M.unflatten, M.ravel
    movedim, moveaxis, swapaxes, swapdims, adjoint = M.movedim, M.moveaxis, M.swapaxes, M.swapdims, M.adjoint
    flip, fliplr, flipud, roll, rot90 = M.flip, M.fliplr, M.flipud, M.roll, M.rot90
    repeat, tile, repeat_interleave, broadcast_to = M.repeat, M.tile, M.repeat_interleave, M.broadcast_to
    expand_as, view_as, reshape_as, as_strided, unfold = M.expand_as, M.view_as, M.reshape_as, M.as_strided, M.unfold
    diag, diagonal, diag_embed, diagflat, trace = M.diag, M.diagonal, M.diag_embed, M.diagflat, M.trace
    tril, triu = M.tril, M.triu
    dot, vdot, inner, outer, ger, mv, bmm = C.dot, C.vdot, C.inner, C.outer, C.ger, C.mv, C.bmm
    addmm, addmv, addr, baddbmm, addbmm = C.addmm, C.addmv, C.addr, C.baddbmm, C.addbmm
    cross, kron = C.cross, C.kron
    conj, conj_physical, angle, sgn = K.conj, K.conj_physical, K.angle, K.sgn
    resolve_conj, resolve_neg, is_conj = K.resolve_conj, K.resolve_neg, K.is_conj
    sgn_, conj_physical_ = inplace.variant(K.sgn, "sgn_"), inplace.variant(K.conj_physical, "conj_physical_")
    cholesky, qr, svd, lu, orgqr = Z.cholesky_, Z.qr_, Z.svd_, Z.lu_, Z.householder_product
    inverse, det, logdet, slogdet, pinverse = S.inverse, S.det, S.logdet, S.slogdet, S.pinverse
    matrix_power, matrix_exp, triangular_solve, lu_solve = S.matrix_power, S.matrix_exp, S.triangular_solve, S.lu_solve_
    cholesky_solve, cholesky_inverse = S.cholesky_solve, S.cholesky_inverse
    sort, argsort, msort, topk, kthvalue = O.sort, O.argsort, O.msort, O.topk, O.kthvalue
    gather, index_select, take, take_along_dim = G.gather, G.index_select, G.take, G.take_along_dim
    scatter, scatter_add, scatter_reduce, put = G.scatter, G.scatter_add, G.scatter_reduce, G.put
    index_add, index_copy, index_fill = G.index_add, G.index_copy, G.index_fill
    index_reduce, index_put, histc, bincount = G.index_reduce, G.index_put, G.histc, G.bincount
    masked_fill, masked_scatter, masked_select = G.masked_fill, G.masked_scatter, G.masked_select
    gcd, lcm = N.gcd, N.lcm
    gcd_, lcm_ = inplace.variant(N.gcd, "gcd_"), inplace.variant(N.lcm, "lcm_")
    mvlgamma, i0 = special.multigammaln, special.i0
    igamma, igammac = special.gammainc, special.gammaincc
    mvlgamma_, i0_ = inplace.variant(special.multigammaln, "mvlgamma_"), inplace.variant(special.i0, "i0_")
    igamma_, igammac_ = inplace.variant(special.gammainc, "igamma_"), inplace.variant(special.gammaincc, "igammac_")
    histogram, split_with_sizes = L.histogram, L.split_with_sizes
    gcd_, lcm_ = inplace.variant(N.gcd, "gcd_"), inplace.variant(N.lcm, "lcm_")
    i0_, mvlgamma_ = inplace.variant(special.i0, "i0_"), inplace.variant(special.multigammaln, "mvlgamma_")
    narrow_copy, nonzero_static, unsafe_chunk = Y.narrow_copy, Y.nonzero_static, Y.unsafe_chunk
    unsafe_split, unsafe_split_with_sizes = Y.unsafe_split, Y.unsafe_split_with_sizes
    as_strided_scatter = Y.as_strided_scatter
    select_scatter, slice_scatter, diagonal_scatter = L.select_scatter, L.slice_scatter, L.diagonal_scatter
    renorm, frexp = D.renorm, differences.frexp
    tril_, triu_ = inplace.variant(M.tril, "tril_"), inplace.variant(M.triu, "triu_")
    addmm_, addmv_ = inplace.variant(C.addmm, "addmm_"), inplace.variant(C.addmv, "addmv_")
    addr_, addbmm_ = inplace.variant(C.addr, "addr_"), inplace.variant(C.addbmm, "addbmm_")
    baddbmm_, renorm_ = inplace.variant(C.baddbmm, "baddbmm_"), inplace.variant(D.renorm, "renorm_")
    stft, istft = spectral.stft, spectral.istft
    eig, lstsq, solve, symeig = removed.eig, removed.lstsq, removed.solve, removed.symeig
    nonzero, argwhere, unique, unique_consecutive = G.nonzero, G.argwhere, G.unique, G.unique_consecutive

    scatter_, scatter_add_, scatter_reduce_, put_ = G.scatter_, G.scatter_add_, G.scatter_reduce_, G.put_
    index_add_, index_copy_, index_fill_ = G.index_add_, G.index_copy_, G.index_fill_
    index_reduce_, index_put_ = G.index_reduce_, G.index_put_
    masked_fill_, masked_scatter_ = G.masked_fill_, G.masked_scatter_
    add_, sub_, mul_, div_ = inplace.add_, inplace.sub_, inplace.mul_, inplace.div_
    copy_, fill_, zero_ = inplace.copy_, inplace.fill_, inplace.zero_

    # fmt: on


# ------------------------------------------------------------------------------------------ operator slots


def _index(x: Tensor) -> int:
    if x.dtype.is_inexact or x.ndim:
        raise ArgumentError("only 0-d integer tensors can be indices", operands=[x.ttype])
    return int(x.item())


def _length(x: Tensor) -> int:
    if not x.ndim:
        raise ArgumentError("len() of a 0-d tensor")
    return x._layout.shape[0]


def _iterate(x: Tensor) -> Iterator[Tensor]:
    if not x.ndim:
        raise ArgumentError("iteration over a 0-d tensor")
    return iter([x[i] for i in range(x.shape[0])])


def _contains(x: Tensor, item: Operand) -> bool:
    return bool(F.eq(x, item).any())


install_operators(
    binary={
        "__add__": F.add,
        "__radd__": lambda a, b: F.add(b, a),
        "__sub__": F.sub,
        "__rsub__": lambda a, b: F.sub(b, a),
        "__mul__": F.mul,
        "__rmul__": lambda a, b: F.mul(b, a),
        "__truediv__": F.div,
        "__rtruediv__": lambda a, b: F.div(b, a),
        "__pow__": F.pow,
        "__rpow__": lambda a, b: F.pow(b, a),
        "__matmul__": F.matmul,
        "__rmatmul__": lambda a, b: F.matmul(b, a),
        "__and__": F.bitwise_and,
        "__rand__": lambda a, b: F.bitwise_and(b, a),
        "__or__": F.bitwise_or,
        "__ror__": lambda a, b: F.bitwise_or(b, a),
        "__xor__": F.bitwise_xor,
        "__rxor__": lambda a, b: F.bitwise_xor(b, a),
        "__lshift__": P.bitwise_left_shift,
        "__rlshift__": lambda a, b: P.bitwise_left_shift(b, a),
        "__rshift__": P.bitwise_right_shift,
        "__rrshift__": lambda a, b: P.bitwise_right_shift(b, a),
        "__floordiv__": P.floor_divide,
        "__rfloordiv__": lambda a, b: P.floor_divide(b, a),
        "__mod__": P.remainder,
        "__rmod__": lambda a, b: P.remainder(b, a),
        "__lt__": F.lt,
        "__le__": F.le,
        "__gt__": F.gt,
        "__ge__": F.ge,
        "__eq__": F.eq,
        "__ne__": F.ne,
        "__iadd__": inplace.add_,
        "__isub__": inplace.sub_,
        "__imul__": inplace.mul_,
        "__itruediv__": inplace.div_,
        "__ifloordiv__": Methods.floor_divide_,
        "__imod__": Methods.remainder_,
        "__ipow__": Methods.pow_,
        "__iand__": Methods.bitwise_and_,
        "__ior__": Methods.bitwise_or_,
        "__ixor__": Methods.bitwise_xor_,
        "__ilshift__": Methods.bitwise_left_shift_,
        "__irshift__": Methods.bitwise_right_shift_,
    },
    other={
        "__neg__": F.neg,
        "__abs__": F.abs,
        "__invert__": F.bitwise_not,
        "__pos__": P.positive,
        "__bool__": truth_of,
        "__int__": lambda x: int(real_item(x, "int")),
        "__float__": lambda x: float(real_item(x, "float")),
        "__index__": _index,
        "__len__": _length,
        "__iter__": _iterate,
        "__contains__": _contains,
        "__getitem__": indexing.get,
        "__setitem__": indexing.put,
    },
)
dispatch.register_tensor_class(Tensor)
