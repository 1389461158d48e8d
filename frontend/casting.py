"""Automatic mixed precision, as far as functions see it: which of them take 16-bit floats, which float32.

`kiln.amp.autocast` sets a `State` for the thread and has every public function enter through `overriding.py`, as the
first subclass of Tensor does; until then nothing is looked at. From then on a call inside a region comes to `call`: the
table of the device says what becomes of the function's operands, and the function runs on those with autocast off, so
that it is what it is outside of a region for operands of these dtypes. A function that the table does not name is left
alone, and what it calls too: it is one op, whatever it is made of. The exceptions are those that PyTorch, too, makes of
other functions, and those that call the user's code (`Rule.THROUGH`).

The tables are PyTorch's (its "Automatic Mixed Precision package"); `tests/golden/autocast.json` holds its answers.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from types import FunctionType
from typing import Any, Final, NamedTuple, TypeAlias, cast

from kiln import dispatch, overriding
from kiln.autograd.tape import record
from kiln.base import LAYERED, MODES, REQUIRES_GRAD, TensorBase
from kiln.errors import DTypeError
from kiln.ir.ops.base import OPS
from kiln.ir.types import Device, DType, bfloat16, float16, float32, float64
from kiln.promotion import cast_to

_CAST: Final = OPS["cast"]


class State(NamedTuple):
    """What autocast does in a thread."""

    on: tuple[str, ...] = ()
    """The kinds of devices on whose tensors it works."""
    cpu: DType = bfloat16
    """What products are taken in on the CPU, when it is on."""
    cuda: DType = float16
    """The same on GPUs."""
    cache: bool = True
    """Whether a weight is cast once in a region, rather than at each use."""


USUAL: Final = State()
KINDS: Final = ("cpu", "cuda")


def state() -> State:
    """That of this thread."""
    return cast("State", MODES.autocast) if MODES.autocast is not None else USUAL


def set_state(new: State) -> None:
    """Change that of this thread."""
    if new.on:
        overriding.arm()
    MODES.autocast = None if new == USUAL else new


@contextlib.contextmanager
def suspended(new: State | None = None) -> Iterator[None]:
    """Autocast off, or as it was when `new` was the mode, in a `with` block."""
    before, MODES.autocast = MODES.autocast, new
    try:
        yield
    finally:
        MODES.autocast = before


# ----------------------------------------------------------------------------------------------- the tables


class Rule(Enum):
    """What becomes of the operands of a function: of floating point tensors on the device, but for those of float64."""

    LOW = "the 16-bit floats of the region"
    FLOAT32 = "float32"
    FLOAT32_UNLESS_TOLD = "float32, unless the call says dtype="
    WIDEST = "float32 if one of them is float32, else the 16-bit floats of the region"
    REFUSED = "an error"
    THROUGH = "nothing here: the functions that this one calls are cast"


Choice: TypeAlias = Callable[..., "Rule | None"]
"""The rule, from the arguments of a call."""


def _mode_of_padding(input: Any, pad: Any = (), mode: str = "constant", value: Any = None) -> Rule | None:
    """On the CPU padding by what is there is computed in float32, but for reflections of volumes."""
    return Rule.FLOAT32 if mode == "replicate" or (mode == "reflect" and len(pad) < 6) else None


def _pool_of_volumes(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Rule | None:
    """Where indices are wanted, too, it is another function of PyTorch's, which it does not name."""
    return None if return_indices else Rule.FLOAT32


def _reciprocal(input: Any, *_: Any, **__: Any) -> Rule | None:
    """number / tensor is number * reciprocal(tensor)."""
    return None if isinstance(input, TensorBase) else Rule.FLOAT32


_PRODUCTS: Final = """
    addbmm addmm baddbmm bmm chain_matmul conv1d conv2d conv3d conv_tbc conv_transpose1d conv_transpose2d
    conv_transpose3d linalg.multi_dot linalg.vecdot linear matmul mm prelu scaled_dot_product_attention
"""
_LOSSES: Final = """
    binary_cross_entropy_with_logits cosine_embedding_loss cross_entropy hinge_embedding_loss huber_loss kl_div l1_loss
    margin_ranking_loss mse_loss multi_margin_loss multilabel_margin_loss nll_loss poisson_nll_loss smooth_l1_loss
    soft_margin_loss triplet_margin_loss
"""
_EVERYWHERE: Final = """
    __deepcopy__ apply_ backward bisect cond corrcoef cov debug inner linalg.matrix_power map map2_ map_
    multi_head_attention_forward pca_lowrank register_hook register_post_accumulate_grad_hook scan svd_lowrank
    triplet_margin_with_distance_loss vmap while_loop
"""
"""What goes `THROUGH` on all devices: compositions, and functions that call the user's."""

_CPU: Final[Mapping[Rule, str]] = {
    Rule.LOW: _PRODUCTS,
    Rule.FLOAT32: f"""
        {_LOSSES}
        adaptive_avg_pool3d adaptive_max_pool3d adaptive_max_pool3d_with_indices avg_pool3d binary_cross_entropy cdist
        cholesky cholesky_inverse cholesky_solve ctc_loss fft.fft fft.fft2 fft.fftn fft.hfft fft.ifft fft.ifft2
        fft.ifftn fft.ihfft fft.irfft fft.irfft2 fft.irfftn fft.rfft fft.rfft2 fft.rfftn fractional_max_pool2d
        fractional_max_pool2d_with_indices fractional_max_pool3d fractional_max_pool3d_with_indices grid_sample inverse
        linalg.cholesky linalg.cholesky_ex linalg.cond linalg.eig linalg.eigh linalg.eigvals linalg.eigvalsh linalg.inv
        linalg.inv_ex linalg.lstsq linalg.matrix_rank linalg.qr linalg.solve linalg.svd linalg.svdvals linalg.tensorinv
        linalg.tensorsolve lu lu_solve max_unpool1d max_unpool2d max_unpool3d
        nanquantile orgqr pinverse polar qr quantile stft svd trace triangular_solve view_as_complex
    """,
    Rule.FLOAT32_UNLESS_TOLD: "prod",
    Rule.WIDEST: "cat index_copy stack",
    Rule.THROUGH: f"{_EVERYWHERE} einsum gru_cell lstm_cell rnn_relu_cell rnn_tanh_cell tensordot",
}
_CUDA: Final[Mapping[Rule, str]] = {
    Rule.LOW: f"{_PRODUCTS} addmv addr einsum gru_cell lstm_cell mv rnn_relu_cell rnn_tanh_cell",
    Rule.FLOAT32: f"""
        {_LOSSES}
        acos asin cdist cosh cosine_similarity cumulative_trapezoid dist erfinv exp expm1 frobenius_norm
        gaussian_nll_loss group_norm gumbel_softmax interpolate layer_norm linalg.norm linalg.vander local_response_norm
        log log10 log1p log2 logsumexp multilabel_soft_margin_loss norm normalize nuclear_norm pairwise_distance pdist
        pow reciprocal renorm rms_norm rsqrt sinh softmin softplus square sum_to_size tan trapezoid upsample
        upsample_bilinear upsample_nearest
    """,
    Rule.FLOAT32_UNLESS_TOLD: "cumprod cumsum linalg.matrix_norm linalg.vector_norm log_softmax prod softmax sum",
    Rule.WIDEST: """
        addcdiv addcmul atan2 bilinear cross dot grid_sample index_put scatter_add tensordot vdot
    """,
    Rule.REFUSED: "binary_cross_entropy",
    Rule.THROUGH: _EVERYWHERE,
}
TABLES: Final = {"cpu": _CPU, "cuda": _CUDA}
CHOICES: Final[Mapping[str, Mapping[str, Choice]]] = {
    "cpu": {"max_pool3d": _pool_of_volumes, "pad": _mode_of_padding},
    "cuda": {"div": _reciprocal},
}
"""Functions whose rule depends on the call."""

_SPACES: Final = ("kiln.", "kiln.nn.functional.", "kiln.Tensor.")


def named(name: str) -> list[FunctionType]:
    """The functions that a name in the tables stands for."""
    known = overriding.public_functions()
    return [known[space + name] for space in _SPACES if space + name in known]


@functools.cache
def rules(kind: str) -> Mapping[Any, Rule | Choice]:
    """The rule of each function on devices of a kind; the others have none."""
    found: dict[Any, Rule | Choice] = {}
    for rule, names in TABLES[kind].items():
        found |= {f: rule for name in names.split() for f in named(name)}
    return found | {f: choice for name, choice in CHOICES[kind].items() for f in named(name)}


def rule_of(function: Any, kind: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Rule | None:
    """What a call of a public function with tensors on devices of this kind does with them."""
    rule = rules(kind).get(function)
    if rule is None or isinstance(rule, Rule):
        return rule
    return rule(*args, **kwargs)


# -------------------------------------------------------------------------------------------------- the calls


def call(public: Any, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A call of a function while there is a state; `original` is what the function does by itself."""
    now: State = MODES.autocast
    kind = _kind((*args, *kwargs.values()), now.on) if now.on else None
    if kind is None:
        return original(*args, **kwargs)
    rule = rule_of(public, kind, args, kwargs)
    if rule is Rule.THROUGH:
        return original(*args, **kwargs)
    if rule is not None:
        low = now.cpu if kind == "cpu" else now.cuda
        args, kwargs = converted(public, rule, kind, low, args, kwargs)
    MODES.autocast = None
    try:
        return original(*args, **kwargs)
    finally:
        MODES.autocast = now


overriding.register_casting(call)


def _tensors(values: Iterable[Any]) -> Iterator[Any]:
    """The tensors among values, and in lists and tuples among them."""
    for x in values:
        if isinstance(x, TensorBase):
            yield x
        elif type(x) in (list, tuple):
            yield from _tensors(x)


def _kind(values: Iterable[Any], on: tuple[str, ...]) -> str | None:
    """The kind of device of the tensors of a call: of those that it is on for, a GPU rather than the CPU."""
    found: str | None = None
    for x in _tensors(values):
        kind: str = x._layout.device.kind
        if kind in on:
            if kind != "cpu":
                return kind
            found = kind
    return found


def _eligible(x: Any, kind: str) -> bool:
    layout = x._layout
    return layout.dtype.kind == "float" and layout.dtype is not float64 and layout.device.kind == kind


def converted(
    function: Any, rule: Rule, kind: str, low: DType, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments that a function gets by a rule (not `THROUGH`) in place of these. DTypeError by `REFUSED`, and for
    other 16-bit floats than those of the region where the widest are wanted."""
    if rule is Rule.REFUSED:
        raise DTypeError(
            "is unsafe under autocast: 16-bit floats can't tell apart the probabilities near 0 and 1 that it needs",
            op=function.__name__,
            operands=[x.ttype for x in _tensors(args)],
            fix="leave out the sigmoid before it, and use binary_cross_entropy_with_logits or nn.BCEWithLogitsLoss",
        )
    if rule is Rule.FLOAT32_UNLESS_TOLD:
        place = _place_of_dtype(function)
        if kwargs.get("dtype") is not None or (len(args) > place and args[place] is not None):
            return args, dict(kwargs)
    dtype = low if rule is Rule.LOW else float32
    if rule is Rule.WIDEST:
        dtype = _widest(function, kind, low, [*_tensors((*args, *kwargs.values()))])

    def convert(x: Any) -> Any:
        if isinstance(x, TensorBase):
            return lowered(x, dtype) if _eligible(x, kind) and x._layout.dtype is not dtype else x
        return type(x)(map(convert, x)) if type(x) in (list, tuple) else x

    return tuple(map(convert, args)), {name: convert(x) for name, x in kwargs.items()}


@functools.cache
def _place_of_dtype(function: Any) -> int:
    return list(inspect.signature(function).parameters).index("dtype")


def _widest(function: Any, kind: str, low: DType, tensors: list[Any]) -> DType:
    dtype = low
    for x in tensors:
        if not _eligible(x, kind):
            continue
        if x._layout.dtype is float32:
            dtype = float32
        elif x._layout.dtype is not low and dtype is not float32:
            raise DTypeError(
                f"takes float32 and {low} inside this autocast region, not {x._layout.dtype}",
                op=function.__name__,
                operands=[t.ttype for t in tensors],
                fix=f"cast it with .to({low!r}), or open the region with dtype={x._layout.dtype!r}",
            )
    return dtype


def recurrent_dtype(device: Device, whole: bool) -> DType | None:
    """What a recurrent layer or cell computes in, states and all; None for that of its operands. On the CPU only some
    (`whole`) do: of the others, the products alone are cast."""
    now: State | None = MODES.autocast
    if now is None or device.kind not in now.on or not (whole or device.kind != "cpu"):
        return None
    return now.cpu if device.kind == "cpu" else now.cuda


# --------------------------------------------------------------------------------------------- cast weights


class _Weights(threading.local):
    """Of the current thread: how many regions are around, and what was cast in them."""

    depth: int = 0
    known: dict[tuple[int, DType], tuple[Any, ...]]

    def __init__(self) -> None:
        self.known = {}


WEIGHTS: Final = _Weights()


def lowered(x: Any, dtype: DType) -> Any:
    """`x` as `dtype`. In a region, the elements of a weight (a leaf that requires gradients) are computed once: each
    use has its own place on the tape, so gradients are those without the cache, bit for bit."""
    whole = x._node is None and x._view is None and x._flags & REQUIRES_GRAD and not x._flags & LAYERED
    if not whole or not WEIGHTS.depth or MODES.recorder is not None or not state().cache or not dtype.is_half:
        return cast_to(x, dtype)
    about = x._buffer, x._buffer.version, x._ptr, x._layout
    known = WEIGHTS.known.get((id(x), dtype))
    if known is None or known[1:5] != about:
        cast = dispatch.run(_CAST, (x,), {"dtype": dtype})[0]
        known = WEIGHTS.known[id(x), dtype] = (x, *about, cast)  # x is kept, so its id is its own
    elements = known[5]
    made = dispatch.tensor_on(elements._buffer, elements._ptr, elements._layout)
    if MODES.grad_enabled:
        record(_CAST, (x,), {"dtype": dtype}, (made,))
    return made
