"""kiln: a graph-capturing JIT compiler over an eager, PyTorch-like frontend.

The name space is lazy (PEP 562): `import kiln` loads nothing but this file, so that a process which only
serves a compiled program stays small. Each public name is imported from its home on first use.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from kiln.autograd import enable_grad as enable_grad
    from kiln.autograd import grad as grad
    from kiln.autograd import is_grad_enabled as is_grad_enabled
    from kiln.autograd import no_grad as no_grad
    from kiln.autograd import set_grad_enabled as set_grad_enabled
    from kiln.creation import arange as arange
    from kiln.creation import as_tensor as as_tensor
    from kiln.creation import empty as empty
    from kiln.creation import empty_like as empty_like
    from kiln.creation import eye as eye
    from kiln.creation import from_numpy as from_numpy
    from kiln.creation import full as full
    from kiln.creation import full_like as full_like
    from kiln.creation import ones as ones
    from kiln.creation import ones_like as ones_like
    from kiln.creation import tensor as tensor
    from kiln.creation import zeros as zeros
    from kiln.creation import zeros_like as zeros_like
    from kiln.errors import ArgumentError as ArgumentError
    from kiln.errors import CaptureError as CaptureError
    from kiln.errors import DTypeError as DTypeError
    from kiln.errors import GradError as GradError
    from kiln.errors import InvalidValueError as InvalidValueError
    from kiln.errors import KilnError as KilnError
    from kiln.errors import KilnIndexError as KilnIndexError
    from kiln.errors import LoadError as LoadError
    from kiln.errors import NotYetError as NotYetError
    from kiln.errors import ShapeError as ShapeError
    from kiln.explain import explain as explain
    from kiln.functional import abs as abs
    from kiln.functional import add as add
    from kiln.functional import all as all
    from kiln.functional import amax as amax
    from kiln.functional import amin as amin
    from kiln.functional import any as any
    from kiln.functional import argmax as argmax
    from kiln.functional import argmin as argmin
    from kiln.functional import bitwise_and as bitwise_and
    from kiln.functional import bitwise_not as bitwise_not
    from kiln.functional import bitwise_or as bitwise_or
    from kiln.functional import bitwise_xor as bitwise_xor
    from kiln.functional import cat as cat
    from kiln.functional import clamp as clamp
    from kiln.functional import clone as clone
    from kiln.functional import cos as cos
    from kiln.functional import div as div
    from kiln.functional import div as true_divide  # noqa: F401
    from kiln.functional import eq as eq
    from kiln.functional import erf as erf
    from kiln.functional import exp as exp
    from kiln.functional import expand as expand
    from kiln.functional import flatten as flatten
    from kiln.functional import ge as ge
    from kiln.functional import gelu as gelu
    from kiln.functional import gt as gt
    from kiln.functional import le as le
    from kiln.functional import linear as linear
    from kiln.functional import log as log
    from kiln.functional import log_softmax as log_softmax
    from kiln.functional import logical_and as logical_and
    from kiln.functional import logical_not as logical_not
    from kiln.functional import logical_or as logical_or
    from kiln.functional import lt as lt
    from kiln.functional import matmul as matmul
    from kiln.functional import max as max
    from kiln.functional import maximum as maximum
    from kiln.functional import mean as mean
    from kiln.functional import min as min
    from kiln.functional import minimum as minimum
    from kiln.functional import mm as mm
    from kiln.functional import mul as mul
    from kiln.functional import ne as ne
    from kiln.functional import neg as neg
    from kiln.functional import permute as permute
    from kiln.functional import pow as pow
    from kiln.functional import reciprocal as reciprocal
    from kiln.functional import relu as relu
    from kiln.functional import reshape as reshape
    from kiln.functional import rsqrt as rsqrt
    from kiln.functional import sigmoid as sigmoid
    from kiln.functional import sin as sin
    from kiln.functional import softmax as softmax
    from kiln.functional import sqrt as sqrt
    from kiln.functional import square as square
    from kiln.functional import squeeze as squeeze
    from kiln.functional import stack as stack
    from kiln.functional import sub as sub
    from kiln.functional import sum as sum
    from kiln.functional import t as t
    from kiln.functional import tanh as tanh
    from kiln.functional import transpose as transpose
    from kiln.functional import unsqueeze as unsqueeze
    from kiln.functional import where as where
    from kiln.ir.types import DType as dtype  # noqa: F401
    from kiln.ir.types import bool_ as bool  # noqa: F401
    from kiln.ir.types import float32 as float32
    from kiln.ir.types import float64 as float64
    from kiln.ir.types import int64 as int64
    from kiln.jit import compile as compile
    from kiln.pointwise import absolute as absolute
    from kiln.pointwise import addcdiv as addcdiv
    from kiln.pointwise import addcmul as addcmul
    from kiln.pointwise import allclose as allclose
    from kiln.pointwise import bitwise_left_shift as bitwise_left_shift
    from kiln.pointwise import bitwise_right_shift as bitwise_right_shift
    from kiln.pointwise import ceil as ceil
    from kiln.pointwise import clamp_max as clamp_max
    from kiln.pointwise import clamp_min as clamp_min
    from kiln.pointwise import clip as clip
    from kiln.pointwise import copysign as copysign
    from kiln.pointwise import divide as divide
    from kiln.pointwise import equal as equal
    from kiln.pointwise import float_power as float_power
    from kiln.pointwise import floor as floor
    from kiln.pointwise import floor_divide as floor_divide
    from kiln.pointwise import fmax as fmax
    from kiln.pointwise import fmin as fmin
    from kiln.pointwise import fmod as fmod
    from kiln.pointwise import frac as frac
    from kiln.pointwise import heaviside as heaviside
    from kiln.pointwise import isclose as isclose
    from kiln.pointwise import isfinite as isfinite
    from kiln.pointwise import isinf as isinf
    from kiln.pointwise import isnan as isnan
    from kiln.pointwise import isneginf as isneginf
    from kiln.pointwise import isposinf as isposinf
    from kiln.pointwise import isreal as isreal
    from kiln.pointwise import ldexp as ldexp
    from kiln.pointwise import lerp as lerp
    from kiln.pointwise import logical_xor as logical_xor
    from kiln.pointwise import multiply as multiply
    from kiln.pointwise import nan_to_num as nan_to_num
    from kiln.pointwise import negative as negative
    from kiln.pointwise import nextafter as nextafter
    from kiln.pointwise import positive as positive
    from kiln.pointwise import remainder as remainder
    from kiln.pointwise import round as round
    from kiln.pointwise import sign as sgn  # noqa: F401
    from kiln.pointwise import sign as sign
    from kiln.pointwise import signbit as signbit
    from kiln.pointwise import subtract as subtract
    from kiln.pointwise import trunc as fix  # noqa: F401
    from kiln.pointwise import trunc as trunc
    from kiln.promotion import result_type as result_type
    from kiln.random import Generator as Generator
    from kiln.random import default_generator as default_generator
    from kiln.random import manual_seed as manual_seed
    from kiln.random import rand as rand
    from kiln.random import rand_like as rand_like
    from kiln.random import randn as randn
    from kiln.random import randn_like as randn_like
    from kiln.runtime.threads import get_num_threads as get_num_threads
    from kiln.runtime.threads import set_num_threads as set_num_threads
    from kiln.serialization import load as load
    from kiln.serialization import save as save
    from kiln.tensor import Tensor as Tensor

_NAMES = {
    "kiln.autograd": "enable_grad grad is_grad_enabled no_grad set_grad_enabled",
    "kiln.creation": (
        "arange as_tensor empty empty_like eye from_numpy full full_like ones ones_like tensor zeros zeros_like"
    ),
    "kiln.errors": (
        "ArgumentError CaptureError DTypeError GradError InvalidValueError KilnError KilnIndexError "
        "LoadError NotYetError ShapeError"
    ),
    "kiln.explain": "explain",
    "kiln.functional": (
        "abs add all amax amin any argmax argmin bitwise_and bitwise_not bitwise_or bitwise_xor cat clamp "
        "clone cos div eq erf exp expand flatten ge gelu gt le linear log log_softmax logical_and logical_not "
        "logical_or lt matmul max maximum mean min minimum mm mul ne neg permute pow reciprocal relu reshape "
        "rsqrt sigmoid sin softmax sqrt square squeeze stack sub sum t tanh transpose true_divide=div "
        "unsqueeze where"
    ),
    "kiln.ir.types": "dtype=DType bool=bool_ float32 float64 int64",
    "kiln.jit": "compile",
    "kiln.pointwise": (
        "absolute addcdiv addcmul allclose bitwise_left_shift bitwise_right_shift ceil clamp_max clamp_min "
        "clip copysign divide equal fix=trunc float_power floor floor_divide fmax fmin fmod frac "
        "heaviside isclose isfinite isinf isnan isneginf isposinf isreal ldexp lerp logical_xor "
        "multiply nan_to_num negative nextafter positive remainder round sgn=sign sign signbit "
        "subtract trunc"
    ),
    "kiln.promotion": "result_type",
    "kiln.random": "Generator default_generator manual_seed rand rand_like randn randn_like",
    "kiln.runtime.threads": "get_num_threads set_num_threads",
    "kiln.serialization": "load save",
    "kiln.tensor": "Tensor",
}
"""Home module -> the public names that it defines; `name=other` where it is called `other` there.
`tests/test_api.py` holds this table against TYPE_CHECKING's."""

_HOMES: dict[str, tuple[str, str]] = {
    name.split("=")[0]: (module, name.split("=")[-1]) for module, names in _NAMES.items() for name in names.split()
}
"""Public name -> home module and the name there."""

_MODULES = frozenset({"ir", "codegen", "runtime", "nn", "optim", "jit", "autograd", "random", "errors"})


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is not None:
        value = getattr(importlib.import_module(home[0]), home[1])
        globals()[name] = value
        return value
    if name in _MODULES:
        return importlib.import_module(f"kiln.{name}")
    raise AttributeError(f"module 'kiln' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_MODULES})


class _Package(ModuleType):
    """Keeps public names from being hidden by submodules: `kiln.tensor` is the function, although importing
    the module `kiln.tensor` makes Python set the attribute to that."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
