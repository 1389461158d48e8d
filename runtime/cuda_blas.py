"""cublasLt, through ctypes: finding the library, and matrix products as plans that are found once per shape.

A plan is made for what is multiplied, not for where it lies: types, sizes, and which operand is given transposed. The
library is asked once, about matrices without gaps at aligned addresses, and its first answer is what every product of
that key runs, on any strides that keep the rows' alignment. It may split k only with sums that are added in a step of
their own, so there are no atomics, and the same product has the same bits in every call and program.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from ctypes import POINTER, byref, c_float, c_int, c_int32, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from kiln.ir.graph import SourceLoc
from kiln.runtime.cuda_driver import CudaError, Gpu, gpu

SWITCH: Final = "KILN_CUBLASLT"
"""Environment variable: the library's path, or 0 for none."""
WORKSPACE: Final = 32 << 20
"""Bytes that the library may want for one product."""
ALIGNMENT: Final = 16
"""Bytes: addresses that are multiples of it are all the same to the library."""

# Values of cublasLt.h, cublas_api.h and library_types.h, the same in CUDA 12 and 13.
R_32F, R_64F, R_16F, R_16BF = 0, 1, 2, 14
COMPUTE_32F, COMPUTE_32F_FAST_TF32, COMPUTE_64F = 68, 77, 70
OP_N, OP_T = 0, 1
LAYOUT_BATCH_COUNT, LAYOUT_STRIDED_BATCH_OFFSET = 5, 6
DESC_TRANSA, DESC_TRANSB, DESC_EPILOGUE = 3, 4, 7
DESC_BIAS_POINTER, DESC_BIAS_BATCH_STRIDE, DESC_BIAS_DATA_TYPE = 8, 10, 26
EPILOGUE_DEFAULT, EPILOGUE_BIAS = 1, 4
PREF_MAX_WORKSPACE_BYTES, PREF_REDUCTION_SCHEME_MASK = 1, 3
PREF_MIN_ALIGNMENTS: Final = (5, 6, 7, 8)
"""Of A, B, C and D, in bytes."""
REDUCTION_SCHEME_COMPUTE_TYPE = 2
STATUS_ALLOC_FAILED = 3

_TYPES: Final = {"float32": R_32F, "float64": R_64F, "float16": R_16F, "bfloat16": R_16BF}
_STATUS: Final = {
    1: "NOT_INITIALIZED", 3: "ALLOC_FAILED", 7: "INVALID_VALUE", 8: "ARCH_MISMATCH", 11: "MAPPING_ERROR",
    13: "EXECUTION_FAILED", 14: "INTERNAL_ERROR", 15: "NOT_SUPPORTED", 16: "LICENSE_ERROR",
}  # fmt: skip
_FIX: Final = f"{SWITCH}=0 computes products with kiln's own kernels"


class Algo(ctypes.Structure):
    """cublasLtMatmulAlgo_t."""

    _fields_ = (("data", c_uint64 * 8),)


class HeuristicResult(ctypes.Structure):
    """cublasLtMatmulHeuristicResult_t."""

    _fields_ = (
        ("algo", Algo),
        ("workspace_size", c_size_t),
        ("state", c_int),
        ("waves_count", c_float),
        ("reserved", c_int * 4),
    )


_CALLS: Final[dict[str, Sequence[Any]]] = {
    "Create": (POINTER(c_void_p),),
    "Destroy": (c_void_p,),
    "MatmulDescCreate": (POINTER(c_void_p), c_int, c_int),
    "MatmulDescDestroy": (c_void_p,),
    "MatmulDescSetAttribute": (c_void_p, c_int, c_void_p, c_size_t),
    "MatrixLayoutCreate": (POINTER(c_void_p), c_int, c_uint64, c_uint64, c_int64),
    "MatrixLayoutDestroy": (c_void_p,),
    "MatrixLayoutSetAttribute": (c_void_p, c_int, c_void_p, c_size_t),
    "MatmulPreferenceCreate": (POINTER(c_void_p),),
    "MatmulPreferenceDestroy": (c_void_p,),
    "MatmulPreferenceSetAttribute": (c_void_p, c_int, c_void_p, c_size_t),
    "MatmulAlgoGetHeuristic": (
        *([c_void_p] * 7), c_int, POINTER(HeuristicResult), POINTER(c_int),
    ),
    "MatmulAlgoCheck": (*([c_void_p] * 6), POINTER(Algo), POINTER(HeuristicResult)),
    "Matmul": (
        *([c_void_p] * 12), POINTER(Algo), c_void_p, c_size_t, c_void_p,
    ),
}  # fmt: skip


Place: TypeAlias = "tuple[int, int]"
"""Where an operand lies: its address, and that of its layout (`Plan.layout`)."""
_MOST_PLANS: Final = 4096
_MOST_LAYOUTS: Final = 256
"""Of one plan."""


class Refused(Exception):
    """A status that is not success."""

    def __init__(self, call: str, status: int) -> None:
        self.status = status
        super().__init__(f"cublasLt{call} said CUBLAS_STATUS_{_STATUS.get(status, status)}")


class Library:
    """The loaded library: `call("Matmul", ...)` is cublasLtMatmul, and raises `Refused`."""

    def __init__(self, path: str) -> None:
        self.path = path
        found = ctypes.CDLL(path)
        self._functions: dict[str, Any] = {}
        for name, types in _CALLS.items():
            function = getattr(found, f"cublasLt{name}")
            function.argtypes, function.restype = list(types), c_int
            self._functions[name] = function
        found.cublasLtGetVersion.restype = c_size_t
        self.version = int(found.cublasLtGetVersion())
        self.matmul = self._functions["Matmul"]

    def call(self, name: str, *args: Any) -> None:
        status = self._functions[name](*args)
        if status:
            raise Refused(name, status)


class _Handle:
    """Something that `kind`Create makes and `kind`Destroy ends."""

    def __init__(self, library: Library, kind: str, *args: Any) -> None:
        self._library, self._kind = library, kind
        made = c_void_p()
        library.call(f"{kind}Create", byref(made), *args)
        self.ptr: int = made.value or 0

    def set(self, attribute: int, value: Any) -> None:
        """`value` has the C type that the header gives for the attribute."""
        self._library.call(f"{self._kind}SetAttribute", self.ptr, attribute, byref(value), ctypes.sizeof(value))

    def __del__(self) -> None:
        if getattr(self, "ptr", None) and not sys.is_finalizing():
            self._library.call(f"{self._kind}Destroy", self.ptr)


@dataclass(frozen=True, slots=True)
class Key:
    """What is multiplied: [batch, m, k] by [batch, k, n], elements of `dtype` to elements of `out`. Turned operands are
    given transposed. `bias`: a row of n is added to every row, before rounding. `tf32`: with the products of float32
    rounded to 10 bits."""

    dtype: str
    out: str
    batch: int
    m: int
    n: int
    k: int
    turned: tuple[bool, bool]
    bias: bool = False
    tf32: bool = False


class Plan:
    """How the library computes a key: what it answered when it was asked."""

    __slots__ = ("_layouts", "_library", "algo", "desc", "key", "lock", "result", "workspace")

    def __init__(self, blas: Blas, key: Key) -> None:
        self.key = key
        self.lock = threading.Lock()
        self._library = library = blas.library
        self._layouts: dict[tuple[int, int, int], _Handle] = {}
        double = key.dtype == "float64"
        compute = COMPUTE_64F if double else COMPUTE_32F_FAST_TF32 if key.tf32 else COMPUTE_32F
        self.desc = _Handle(library, "MatmulDesc", compute, R_64F if double else R_32F)
        # The library has columns where these matrices have rows: right.T @ left.T is the transposed result.
        for attribute, turned in zip((DESC_TRANSA, DESC_TRANSB), reversed(key.turned), strict=True):
            self.desc.set(attribute, c_int32(OP_T if turned else OP_N))
        if key.bias:
            self.desc.set(DESC_EPILOGUE, c_uint32(EPILOGUE_BIAS))
            self.desc.set(DESC_BIAS_DATA_TYPE, c_int32(_TYPES[key.out]))
            if key.batch > 1:
                self.desc.set(DESC_BIAS_BATCH_STRIDE, c_int64(key.n))
        self.result = self.layout(2)
        self.algo, self.workspace = self._chosen(blas)

    def stored(self, which: int) -> tuple[int, int]:
        """How many rows left (0), right (1) or result (2) has in memory, and how long they are."""
        key = self.key
        rows, columns = ((key.m, key.k), (key.k, key.n), (key.m, key.n))[which]
        return (columns, rows) if which < 2 and key.turned[which] else (rows, columns)

    def layout(self, which: int, ld: int = 0, stride: int = -1) -> _Handle:
        """Of left (0), right (1) or result (2): rows that begin every `ld` elements, matrices every `stride`; by
        default without gaps."""
        height, width = self.stored(which)
        ld = ld or width
        stride = height * width if stride < 0 else stride
        found = self._layouts.get((which, ld, stride))
        if found is None:
            if len(self._layouts) >= _MOST_LAYOUTS:
                self._layouts.clear()
            dtype = _TYPES[self.key.out if which == 2 else self.key.dtype]
            found = _Handle(self._library, "MatrixLayout", dtype, width, height, ld)
            if self.key.batch > 1:
                found.set(LAYOUT_BATCH_COUNT, c_int32(self.key.batch))
                found.set(LAYOUT_STRIDED_BATCH_OFFSET, c_int64(stride))
            self._layouts[which, ld, stride] = found
        return found

    def _chosen(self, blas: Blas) -> tuple[Algo, int]:
        preference = _Handle(self._library, "MatmulPreference")
        preference.set(PREF_MAX_WORKSPACE_BYTES, c_uint64(WORKSPACE))
        preference.set(PREF_REDUCTION_SCHEME_MASK, c_uint32(REDUCTION_SCHEME_COMPUTE_TYPE))
        for attribute in PREF_MIN_ALIGNMENTS:
            preference.set(attribute, c_uint32(ALIGNMENT))
        left, right, result = self.layout(0).ptr, self.layout(1).ptr, self.result.ptr
        answer, count = HeuristicResult(), c_int()
        self._library.call(
            "MatmulAlgoGetHeuristic", blas.handle.ptr, self.desc.ptr, right, left, result, result, preference.ptr, 1,
            byref(answer), byref(count),
        )  # fmt: skip
        if not count.value or answer.state:
            raise Refused("MatmulAlgoGetHeuristic", answer.state or 15)
        return answer.algo, int(answer.workspace_size)

    def takes(self, blas: Blas, left: _Handle, right: _Handle) -> bool:
        """Whether what was chosen works on operands that lie so."""
        answer, result = HeuristicResult(), self.result.ptr
        try:
            self._library.call(
                "MatmulAlgoCheck", blas.handle.ptr, self.desc.ptr, right.ptr, left.ptr, result, result,
                byref(self.algo), byref(answer),
            )  # fmt: skip
        except Refused:
            return False
        return bool(answer.state == 0 and answer.workspace_size <= self.workspace)


class Blas:
    """The library on one GPU."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.handle = _Handle(library, "")
        self._plans: dict[Key, Plan] = {}
        self._lock = threading.Lock()
        self._ones = {False: c_float(1), True: ctypes.c_double(1)}
        self._zeros = {False: c_float(0), True: ctypes.c_double(0)}

    def plan(self, key: Key) -> Plan:
        """The plan of a key: made once, or again with the same answer where there are very many."""
        found = self._plans.get(key)
        if found is None:
            with self._lock:
                found = self._plans.get(key) or Plan(self, key)
                if len(self._plans) >= _MOST_PLANS:
                    self._plans.clear()
                self._plans[key] = found
        return found

    def multiply(
        self,
        plan: Plan,
        left: Place,
        right: Place,
        out: int,
        bias: int,
        workspace: int,
        stream: int,
    ) -> None:
        """Issue a product. `Refused`."""
        double = plan.key.dtype == "float64"
        result = plan.result.ptr
        args = (
            self.handle.ptr, plan.desc.ptr, byref(self._ones[double]), right[0], right[1], left[0], left[1],
            byref(self._zeros[double]), out, result, out, result, byref(plan.algo), workspace, plan.workspace, stream,
        )  # fmt: skip
        if not plan.key.bias:
            status = self.library.matmul(*args)
        else:
            with plan.lock:  # the bias is part of the description
                plan.desc.set(DESC_BIAS_POINTER, c_void_p(bias))
                status = self.library.matmul(*args)
        if status:
            raise Refused("Matmul", status)


# --------------------------------------------------------------------------------------------------- finding it

_lock: Final = threading.Lock()
_libraries: Final[dict[tuple[str | None, int], Library | None]] = {}
_opened: Final[dict[tuple[Gpu, str | None], Blas]] = {}


def library(major: int) -> Library | None:
    """The library of CUDA `major`; None when there is none here, or none is wanted. CudaError of kind "library" when
    the one that `KILN_CUBLASLT` names can't be loaded."""
    wanted = os.environ.get(SWITCH)
    key = (wanted, major)
    if key not in _libraries:
        with _lock:
            _libraries.setdefault(key, _found(wanted, major))
    return _libraries[key]


def _found(wanted: str | None, major: int) -> Library | None:
    if wanted == "0":
        return None
    if wanted:
        try:
            return Library(wanted)
        except (OSError, AttributeError) as error:
            fix = f"unset {SWITCH}, or name a libcublasLt.so"
            raise CudaError("library", f"{SWITCH} names a library that can't be loaded ({error})", fix) from None
    for path in _places(f"libcublasLt.so.{major}", major):
        try:
            return Library(path)
        except OSError:  # it is not there, or not for this machine
            continue
    return None


def _places(name: str, major: int) -> Iterator[str]:
    """Where it may be: as `cuda.pathfinder` finds it (which CuPy uses), in NVIDIA's wheels, in conda's environment, in
    a toolkit, where the loader looks."""
    try:
        pathfinder: Any = importlib.import_module("cuda.pathfinder")
    except ImportError:
        pathfinder = None
    if pathfinder is not None:
        try:
            found = str(pathfinder.load_nvidia_dynamic_lib("cublasLt").abs_path)
        except RuntimeError:  # there is none that it knows
            found = ""
        if Path(found).name == name:
            yield found
    spec = importlib.util.find_spec("nvidia")
    for folder in spec.submodule_search_locations or () if spec is not None else ():
        for part in (f"cu{major}", "cublas"):
            yield str(Path(folder) / part / "lib" / name)
    for variable, parts in (
        ("CONDA_PREFIX", ("lib",)),
        ("CUDA_PATH", ("lib64", "lib")),
        ("CUDA_HOME", ("lib64", "lib")),
    ):
        if root := os.environ.get(variable):
            yield from (str(Path(root) / part / name) for part in parts)
    yield name


def _library_of(place: Gpu) -> Library | None:
    return library(int(place.session.runtime.runtimeGetVersion()) // 1000)


def products_library(index: int = 0) -> Library | None:
    """The library that can compute products on GPU `index`. CudaError of kind "library", as of `library`."""
    return _library_of(gpu(index))


def blas(place: Gpu) -> Blas:
    """The library on a GPU; CudaError of kind "library" when there is none, or it can't be used there."""
    key = (place, os.environ.get(SWITCH))
    made = _opened.get(key)
    if made is None:
        found = _library_of(place)
        if found is None:
            fix = "install it with CuPy: pip install 'cupy-cuda13x[ctk]'"
            raise CudaError("library", "there is no cublasLt, which this program was made for", fix)
        with place.guarded("opening cublasLt"):
            try:
                made = Blas(found)
            except Refused as refusal:
                raise failure(refusal, place) from None
        made = _opened.setdefault(key, made)
    return made


def failure(refusal: Refused, place: Gpu, what: str = "", op: str = "", loc: SourceLoc | None = None) -> CudaError:
    """What a status means."""
    if refusal.status == STATUS_ALLOC_FAILED:
        return place.no_memory(what or "opening cublasLt")
    message = f"{what}: {refusal}" if what else str(refusal)
    return CudaError("library", message, _FIX, op, loc)
