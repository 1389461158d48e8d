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
    from kiln.activation import gelu as gelu
    from kiln.amp import autocast as autocast
    from kiln.amp import clear_autocast_cache as clear_autocast_cache
    from kiln.amp import get_autocast_dtype as get_autocast_dtype
    from kiln.amp import is_autocast_cache_enabled as is_autocast_cache_enabled
    from kiln.amp import is_autocast_enabled as is_autocast_enabled
    from kiln.amp import set_autocast_cache_enabled as set_autocast_cache_enabled
    from kiln.amp import set_autocast_dtype as set_autocast_dtype
    from kiln.amp import set_autocast_enabled as set_autocast_enabled
    from kiln.autograd import enable_grad as enable_grad
    from kiln.autograd import grad as grad
    from kiln.autograd import inference_mode as inference_mode
    from kiln.autograd import is_grad_enabled as is_grad_enabled
    from kiln.autograd import is_inference_mode_enabled as is_inference_mode_enabled
    from kiln.autograd import no_grad as no_grad
    from kiln.autograd import set_grad_enabled as set_grad_enabled
    from kiln.complexes import angle as angle
    from kiln.complexes import complex as complex
    from kiln.complexes import conj as conj
    from kiln.complexes import conj_physical as conj_physical
    from kiln.complexes import imag as imag
    from kiln.complexes import is_conj as is_conj
    from kiln.complexes import polar as polar
    from kiln.complexes import real as real
    from kiln.complexes import resolve_conj as resolve_conj
    from kiln.complexes import resolve_neg as resolve_neg
    from kiln.complexes import sgn as sgn
    from kiln.complexes import view_as_complex as view_as_complex
    from kiln.complexes import view_as_real as view_as_real
    from kiln.constants import Layout as layout
    from kiln.constants import MemoryFormat as memory_format
    from kiln.constants import Size as Size
    from kiln.constants import channels_last as channels_last
    from kiln.constants import channels_last_3d as channels_last_3d
    from kiln.constants import contiguous_format as contiguous_format
    from kiln.constants import e as e
    from kiln.constants import inf as inf
    from kiln.constants import nan as nan
    from kiln.constants import newaxis as newaxis
    from kiln.constants import pi as pi
    from kiln.constants import preserve_format as preserve_format
    from kiln.constants import strided as strided
    from kiln.contraction import addbmm as addbmm
    from kiln.contraction import addmm as addmm
    from kiln.contraction import addmv as addmv
    from kiln.contraction import addr as addr
    from kiln.contraction import baddbmm as baddbmm
    from kiln.contraction import bmm as bmm
    from kiln.contraction import chain_matmul as chain_matmul
    from kiln.contraction import cross as cross
    from kiln.contraction import dot as dot
    from kiln.contraction import einsum as einsum
    from kiln.contraction import ger as ger
    from kiln.contraction import inner as inner
    from kiln.contraction import kron as kron
    from kiln.contraction import mv as mv
    from kiln.contraction import outer as outer
    from kiln.contraction import tensordot as tensordot
    from kiln.contraction import vdot as vdot
    from kiln.control import cond as cond
    from kiln.control import map as map
    from kiln.control import scan as scan
    from kiln.control import while_loop as while_loop
    from kiln.convolution import conv1d as conv1d
    from kiln.convolution import conv2d as conv2d
    from kiln.convolution import conv3d as conv3d
    from kiln.convolution import conv_tbc as conv_tbc
    from kiln.convolution import conv_transpose1d as conv_transpose1d
    from kiln.convolution import conv_transpose2d as conv_transpose2d
    from kiln.convolution import conv_transpose3d as conv_transpose3d
    from kiln.copies import *  # noqa: F403
    from kiln.creation import arange as arange
    from kiln.creation import as_tensor as as_tensor
    from kiln.creation import as_tensor as asarray
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
    from kiln.cumulative import cummax as cummax
    from kiln.cumulative import cummin as cummin
    from kiln.cumulative import cumprod as cumprod
    from kiln.cumulative import cumsum as cumsum
    from kiln.cumulative import cumulative_trapezoid as cumulative_trapezoid
    from kiln.cumulative import diff as diff
    from kiln.cumulative import logcumsumexp as logcumsumexp
    from kiln.cumulative import trapezoid as trapezoid
    from kiln.cumulative import trapezoid as trapz
    from kiln.debugging import bisect as bisect
    from kiln.debugging import debug as debug
    from kiln.device import device as device
    from kiln.differences import frexp as frexp
    from kiln.differences import gradient as gradient
    from kiln.dims import Dim as Dim
    from kiln.dims import mark_dynamic as mark_dynamic
    from kiln.distances import cdist as cdist
    from kiln.distances import pdist as pdist
    from kiln.distances import renorm as renorm
    from kiln.dtypes import finfo as finfo
    from kiln.dtypes import iinfo as iinfo
    from kiln.dtypes import is_complex as is_complex
    from kiln.dtypes import is_floating_point as is_floating_point
    from kiln.errors import ArgumentError as ArgumentError
    from kiln.errors import CaptureError as CaptureError
    from kiln.errors import DeviceError as DeviceError
    from kiln.errors import DTypeError as DTypeError
    from kiln.errors import ExportError as ExportError
    from kiln.errors import GradError as GradError
    from kiln.errors import InvalidValueError as InvalidValueError
    from kiln.errors import KilnError as KilnError
    from kiln.errors import KilnIndexError as KilnIndexError
    from kiln.errors import LinAlgError as LinAlgError
    from kiln.errors import LoadError as LoadError
    from kiln.errors import NanError as NanError
    from kiln.errors import NotYetError as NotYetError
    from kiln.errors import OutOfMemoryError as OutOfMemoryError
    from kiln.errors import SaveError as SaveError
    from kiln.errors import ShapeError as ShapeError
    from kiln.errors import SpentError as SpentError
    from kiln.errors import TransformError as TransformError
    from kiln.errors import WorkerError as WorkerError
    from kiln.exchange import from_dlpack as from_dlpack
    from kiln.explain import explain as explain
    from kiln.factorizations import cholesky_ as cholesky
    from kiln.factorizations import householder_product as orgqr
    from kiln.factorizations import lu_ as lu
    from kiln.factorizations import lu_unpack as lu_unpack
    from kiln.factorizations import qr_ as qr
    from kiln.factorizations import svd_ as svd
    from kiln.flat import *  # noqa: F403
    from kiln.free import *  # noqa: F403
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
    from kiln.functional import div as true_divide
    from kiln.functional import eq as eq
    from kiln.functional import erf as erf
    from kiln.functional import exp as exp
    from kiln.functional import expand as expand
    from kiln.functional import flatten as flatten
    from kiln.functional import ge as ge
    from kiln.functional import ge as greater_equal
    from kiln.functional import gt as greater
    from kiln.functional import gt as gt
    from kiln.functional import le as le
    from kiln.functional import le as less_equal
    from kiln.functional import linear as linear
    from kiln.functional import log as log
    from kiln.functional import log_softmax as log_softmax
    from kiln.functional import logical_and as logical_and
    from kiln.functional import logical_not as logical_not
    from kiln.functional import logical_or as logical_or
    from kiln.functional import lt as less
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
    from kiln.functional import ne as not_equal
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
    from kiln.gathering import argwhere as argwhere
    from kiln.gathering import bincount as bincount
    from kiln.gathering import gather as gather
    from kiln.gathering import histc as histc
    from kiln.gathering import index_add as index_add
    from kiln.gathering import index_copy as index_copy
    from kiln.gathering import index_fill as index_fill
    from kiln.gathering import index_put as index_put
    from kiln.gathering import index_reduce as index_reduce
    from kiln.gathering import index_select as index_select
    from kiln.gathering import masked_fill as masked_fill
    from kiln.gathering import masked_scatter as masked_scatter
    from kiln.gathering import masked_select as masked_select
    from kiln.gathering import nonzero as nonzero
    from kiln.gathering import put as put
    from kiln.gathering import scatter as scatter
    from kiln.gathering import scatter_add as scatter_add
    from kiln.gathering import scatter_reduce as scatter_reduce
    from kiln.gathering import take as take
    from kiln.gathering import take_along_dim as take_along_dim
    from kiln.gathering import unique as unique
    from kiln.gathering import unique_consecutive as unique_consecutive
    from kiln.integers import gcd as gcd
    from kiln.integers import lcm as lcm
    from kiln.interop import is_tensor as is_tensor
    from kiln.interop import numel as numel
    from kiln.ir.types import DType as dtype
    from kiln.ir.types import bfloat16 as bfloat16
    from kiln.ir.types import bool_ as bool
    from kiln.ir.types import complex64 as cfloat
    from kiln.ir.types import complex64 as complex64
    from kiln.ir.types import complex128 as cdouble
    from kiln.ir.types import complex128 as complex128
    from kiln.ir.types import float16 as float16
    from kiln.ir.types import float16 as half
    from kiln.ir.types import float32 as float
    from kiln.ir.types import float32 as float32
    from kiln.ir.types import float64 as double
    from kiln.ir.types import float64 as float64
    from kiln.ir.types import int8 as int8
    from kiln.ir.types import int16 as int16
    from kiln.ir.types import int16 as short
    from kiln.ir.types import int32 as int
    from kiln.ir.types import int32 as int32
    from kiln.ir.types import int64 as int64
    from kiln.ir.types import int64 as long
    from kiln.ir.types import uint8 as uint8
    from kiln.jit import compile as compile
    from kiln.legacy import *  # noqa: F403
    from kiln.linalg import vander_ as vander
    from kiln.lowrank import pca_lowrank as pca_lowrank
    from kiln.lowrank import svd_lowrank as svd_lowrank
    from kiln.maths import acos as acos
    from kiln.maths import acos as arccos
    from kiln.maths import acosh as acosh
    from kiln.maths import acosh as arccosh
    from kiln.maths import asin as arcsin
    from kiln.maths import asin as asin
    from kiln.maths import asinh as arcsinh
    from kiln.maths import asinh as asinh
    from kiln.maths import atan as arctan
    from kiln.maths import atan as atan
    from kiln.maths import atan2 as arctan2
    from kiln.maths import atan2 as atan2
    from kiln.maths import atanh as arctanh
    from kiln.maths import atanh as atanh
    from kiln.maths import cosh as cosh
    from kiln.maths import deg2rad as deg2rad
    from kiln.maths import digamma as digamma
    from kiln.maths import erfc as erfc
    from kiln.maths import erfinv as erfinv
    from kiln.maths import exp2 as exp2
    from kiln.maths import expm1 as expm1
    from kiln.maths import hypot as hypot
    from kiln.maths import lgamma as lgamma
    from kiln.maths import log1p as log1p
    from kiln.maths import log2 as log2
    from kiln.maths import log10 as log10
    from kiln.maths import logaddexp as logaddexp
    from kiln.maths import logaddexp2 as logaddexp2
    from kiln.maths import logit as logit
    from kiln.maths import rad2deg as rad2deg
    from kiln.maths import sinc as sinc
    from kiln.maths import sinh as sinh
    from kiln.maths import tan as tan
    from kiln.maths import xlog1py as xlog1py
    from kiln.maths import xlogy as xlogy
    from kiln.movement import adjoint as adjoint
    from kiln.movement import as_strided as as_strided
    from kiln.movement import atleast_1d as atleast_1d
    from kiln.movement import atleast_2d as atleast_2d
    from kiln.movement import atleast_3d as atleast_3d
    from kiln.movement import block_diag as block_diag
    from kiln.movement import broadcast_tensors as broadcast_tensors
    from kiln.movement import broadcast_to as broadcast_to
    from kiln.movement import cartesian_prod as cartesian_prod
    from kiln.movement import chunk as chunk
    from kiln.movement import column_stack as column_stack
    from kiln.movement import concat as concat
    from kiln.movement import concatenate as concatenate
    from kiln.movement import diag as diag
    from kiln.movement import diag_embed as diag_embed
    from kiln.movement import diagflat as diagflat
    from kiln.movement import diagonal as diagonal
    from kiln.movement import dsplit as dsplit
    from kiln.movement import dstack as dstack
    from kiln.movement import flip as flip
    from kiln.movement import fliplr as fliplr
    from kiln.movement import flipud as flipud
    from kiln.movement import hsplit as hsplit
    from kiln.movement import hstack as hstack
    from kiln.movement import meshgrid as meshgrid
    from kiln.movement import moveaxis as moveaxis
    from kiln.movement import movedim as movedim
    from kiln.movement import narrow as narrow
    from kiln.movement import ravel as ravel
    from kiln.movement import repeat_interleave as repeat_interleave
    from kiln.movement import roll as roll
    from kiln.movement import rot90 as rot90
    from kiln.movement import select as select
    from kiln.movement import split as split
    from kiln.movement import swapaxes as swapaxes
    from kiln.movement import swapdims as swapdims
    from kiln.movement import tensor_split as tensor_split
    from kiln.movement import tile as tile
    from kiln.movement import trace as trace
    from kiln.movement import tril as tril
    from kiln.movement import triu as triu
    from kiln.movement import unbind as unbind
    from kiln.movement import unflatten as unflatten
    from kiln.movement import vsplit as vsplit
    from kiln.movement import vstack as row_stack
    from kiln.movement import vstack as vstack
    from kiln.overriding import DisableTorchFunction as DisableTorchFunction
    from kiln.overriding import DisableTorchFunctionSubclass as DisableTorchFunctionSubclass
    from kiln.padding import channel_shuffle as channel_shuffle
    from kiln.padding import pixel_shuffle as pixel_shuffle
    from kiln.padding import pixel_unshuffle as pixel_unshuffle
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
    from kiln.pointwise import sign as sign
    from kiln.pointwise import signbit as signbit
    from kiln.pointwise import subtract as subtract
    from kiln.pointwise import trunc as fix
    from kiln.pointwise import trunc as trunc
    from kiln.pooling import adaptive_avg_pool1d as adaptive_avg_pool1d
    from kiln.pooling import adaptive_max_pool1d_with_indices as adaptive_max_pool1d
    from kiln.pooling import avg_pool1d as avg_pool1d
    from kiln.pooling import max_pool1d as max_pool1d
    from kiln.pooling import max_pool1d_with_indices as max_pool1d_with_indices
    from kiln.pooling import max_pool2d as max_pool2d
    from kiln.pooling import max_pool3d as max_pool3d
    from kiln.printing import set_printoptions as set_printoptions
    from kiln.promotion import can_cast as can_cast
    from kiln.promotion import get_default_dtype as get_default_dtype
    from kiln.promotion import promote_types as promote_types
    from kiln.promotion import result_type as result_type
    from kiln.promotion import set_default_dtype as set_default_dtype
    from kiln.random import Generator as Generator
    from kiln.random import bernoulli as bernoulli
    from kiln.random import default_generator as default_generator
    from kiln.random import get_rng_state as get_rng_state
    from kiln.random import initial_seed as initial_seed
    from kiln.random import manual_seed as manual_seed
    from kiln.random import multinomial as multinomial
    from kiln.random import normal as normal
    from kiln.random import poisson as poisson
    from kiln.random import rand as rand
    from kiln.random import rand_like as rand_like
    from kiln.random import randint as randint
    from kiln.random import randint_like as randint_like
    from kiln.random import randn as randn
    from kiln.random import randn_like as randn_like
    from kiln.random import randperm as randperm
    from kiln.random import seed as seed
    from kiln.random import set_rng_state as set_rng_state
    from kiln.ranges import linspace as linspace
    from kiln.ranges import logspace as logspace
    from kiln.ranges import tril_indices as tril_indices
    from kiln.ranges import triu_indices as triu_indices
    from kiln.reductions import aminmax as aminmax
    from kiln.reductions import count_nonzero as count_nonzero
    from kiln.reductions import dist as dist
    from kiln.reductions import logsumexp as logsumexp
    from kiln.reductions import median as median
    from kiln.reductions import mode as mode
    from kiln.reductions import nanmean as nanmean
    from kiln.reductions import nanmedian as nanmedian
    from kiln.reductions import nansum as nansum
    from kiln.reductions import norm as norm
    from kiln.reductions import prod as prod
    from kiln.reductions import std as std
    from kiln.reductions import std_mean as std_mean
    from kiln.reductions import var as var
    from kiln.reductions import var_mean as var_mean
    from kiln.removed import eig as eig
    from kiln.removed import lstsq as lstsq
    from kiln.removed import matrix_rank as matrix_rank
    from kiln.removed import solve as solve
    from kiln.removed import symeig as symeig
    from kiln.runtime.threads import get_num_threads as get_num_threads
    from kiln.runtime.threads import set_num_threads as set_num_threads
    from kiln.segments import binomial as binomial
    from kiln.segments import histogramdd as histogramdd
    from kiln.segments import segment_reduce as segment_reduce
    from kiln.selection import broadcast_shapes as broadcast_shapes
    from kiln.selection import combinations as combinations
    from kiln.selection import diagonal_scatter as diagonal_scatter
    from kiln.selection import histogram as histogram
    from kiln.selection import isin as isin
    from kiln.selection import select_scatter as select_scatter
    from kiln.selection import slice_scatter as slice_scatter
    from kiln.selection import split_with_sizes as split_with_sizes
    from kiln.selection import unravel_index as unravel_index
    from kiln.serialization import load as load
    from kiln.serialization import save as save
    from kiln.settings import are_deterministic_algorithms_enabled as are_deterministic_algorithms_enabled
    from kiln.settings import get_default_device as get_default_device
    from kiln.settings import get_deterministic_debug_mode as get_deterministic_debug_mode
    from kiln.settings import get_float32_matmul_precision as get_float32_matmul_precision
    from kiln.settings import get_num_interop_threads as get_num_interop_threads
    from kiln.settings import (
        is_deterministic_algorithms_warn_only_enabled as is_deterministic_algorithms_warn_only_enabled,
    )
    from kiln.settings import is_warn_always_enabled as is_warn_always_enabled
    from kiln.settings import set_default_device as set_default_device
    from kiln.settings import set_deterministic_debug_mode as set_deterministic_debug_mode
    from kiln.settings import set_float32_matmul_precision as set_float32_matmul_precision
    from kiln.settings import set_flush_denormal as set_flush_denormal
    from kiln.settings import set_num_interop_threads as set_num_interop_threads
    from kiln.settings import set_warn_always as set_warn_always
    from kiln.settings import use_deterministic_algorithms as use_deterministic_algorithms
    from kiln.sorting import argsort as argsort
    from kiln.sorting import bucketize as bucketize
    from kiln.sorting import kthvalue as kthvalue
    from kiln.sorting import msort as msort
    from kiln.sorting import searchsorted as searchsorted
    from kiln.sorting import sort as sort
    from kiln.sorting import topk as topk
    from kiln.special import gammainc as igamma
    from kiln.special import gammaincc as igammac
    from kiln.special import i0 as i0
    from kiln.special import multigammaln as mvlgamma
    from kiln.special import polygamma as polygamma
    from kiln.spectral import istft as istft
    from kiln.spectral import stft as stft
    from kiln.statistics import corrcoef as corrcoef
    from kiln.statistics import cov as cov
    from kiln.statistics import nanquantile as nanquantile
    from kiln.statistics import quantile as quantile
    from kiln.storage import *  # noqa: F403
    from kiln.systems import cholesky_inverse as cholesky_inverse
    from kiln.systems import cholesky_solve as cholesky_solve
    from kiln.systems import det as det
    from kiln.systems import inverse as inverse
    from kiln.systems import logdet as logdet
    from kiln.systems import lu_solve_ as lu_solve
    from kiln.systems import matrix_exp as matrix_exp
    from kiln.systems import matrix_power as matrix_power
    from kiln.systems import pinverse as pinverse
    from kiln.systems import slogdet as slogdet
    from kiln.systems import triangular_solve as triangular_solve
    from kiln.tensor import Tensor as Tensor
    from kiln.vmap import vmap as vmap
    from kiln.windows import bartlett_window as bartlett_window
    from kiln.windows import blackman_window as blackman_window
    from kiln.windows import hamming_window as hamming_window
    from kiln.windows import hann_window as hann_window
    from kiln.windows import kaiser_window as kaiser_window

_NAMES = {
    "kiln.activation": "gelu",
    "kiln.amp": (
        "autocast clear_autocast_cache get_autocast_dtype is_autocast_cache_enabled is_autocast_enabled "
        "set_autocast_cache_enabled set_autocast_dtype set_autocast_enabled"
    ),
    "kiln.autograd": (
        "enable_grad grad inference_mode is_grad_enabled is_inference_mode_enabled no_grad set_grad_enabled"
    ),
    "kiln.complexes": (
        "angle complex conj conj_physical imag is_conj polar real resolve_conj resolve_neg sgn "
        "view_as_complex view_as_real"
    ),
    "kiln.constants": (
        "Size channels_last channels_last_3d contiguous_format e inf layout=Layout memory_format=MemoryFormat "
        "nan newaxis pi preserve_format strided"
    ),
    "kiln.control": "cond map scan while_loop",
    "kiln.contraction": (
        "addbmm addmm addmv addr baddbmm bmm chain_matmul cross dot einsum ger inner kron mv outer tensordot vdot"
    ),
    "kiln.copies": (
        "alias_copy as_strided_copy as_strided_scatter detach_copy diagonal_copy empty_permuted expand_copy fill "
        "narrow_copy nonzero_static permute_copy range rsub scalar_tensor select_copy slice_copy split_copy "
        "split_with_sizes_copy squeeze_copy t_copy transpose_copy unbind_copy unfold_copy unsafe_chunk "
        "unsafe_split unsafe_split_with_sizes unsqueeze_copy view_as_complex_copy view_as_real_copy view_copy"
    ),
    "kiln.convolution": "conv1d conv2d conv3d conv_tbc conv_transpose1d conv_transpose2d conv_transpose3d",
    "kiln.creation": (
        "arange as_tensor asarray=as_tensor empty empty_like eye from_numpy full full_like ones ones_like "
        "tensor zeros zeros_like"
    ),
    "kiln.cumulative": "cummax cummin cumprod cumsum cumulative_trapezoid diff logcumsumexp trapezoid trapz=trapezoid",
    "kiln.device": "device",
    "kiln.debugging": "bisect debug",
    "kiln.differences": "frexp gradient",
    "kiln.dims": "Dim mark_dynamic",
    "kiln.distances": "cdist pdist renorm",
    "kiln.dtypes": "finfo iinfo is_complex is_floating_point",
    "kiln.errors": (
        "ArgumentError CaptureError DTypeError DeviceError ExportError GradError InvalidValueError KilnError "
        "KilnIndexError LinAlgError LoadError NanError NotYetError OutOfMemoryError SaveError ShapeError SpentError "
        "TransformError WorkerError"
    ),
    "kiln.explain": "explain",
    "kiln.factorizations": "cholesky=cholesky_ lu=lu_ lu_unpack orgqr=householder_product qr=qr_ svd=svd_",
    "kiln.flat": (
        "alpha_dropout alpha_dropout_ batch_norm bilinear binary_cross_entropy_with_logits "
        "celu celu_ constant_pad_nd cosine_embedding_loss cosine_similarity ctc_loss dropout dropout_ embedding "
        "feature_alpha_dropout feature_alpha_dropout_ feature_dropout feature_dropout_ frobenius_norm group_norm "
        "gru_cell hardshrink hinge_embedding_loss instance_norm kl_div layer_norm lstm_cell margin_ranking_loss "
        "norm_except_dim nuclear_norm pairwise_distance poisson_nll_loss prelu rms_norm rnn_relu_cell "
        "rnn_tanh_cell rrelu rrelu_ selu selu_ threshold threshold_ triplet_margin_loss"
    ),
    "kiln.free": (
        "abs_ acos_ acosh_ addmv_ arccos_ arccosh_ arcsin_ arcsinh_ arctan_ arctanh_ as_strided_ asin_ asinh_ "
        "atan_ atanh_ ceil_ clamp_ clamp_max_ clamp_min_ clip_ conj_physical_ cos_ cosh_ deg2rad_ detach detach_ "
        "erf_ erfc_ exp2_ exp_ expm1_ fill_ fix_ floor_ frac_ gcd_ get_device i0_ index_put_ is_inference "
        "is_nonzero is_same_size is_signed lcm_ ldexp_ log10_ log1p_ log2_ log_ logit_ nan_to_num_ neg_ negative_ "
        "rad2deg_ reciprocal_ relu_ resize_as_ round_ rsqrt_ sigmoid_ sin_ sinc_ sinh_ sqrt_ square_ tan_ tanh_ "
        "trunc_ xlogy_ zero_"
    ),
    "kiln.functional": (
        "abs add all amax amin any argmax argmin bitwise_and bitwise_not bitwise_or bitwise_xor cat clamp "
        "clone cos div eq erf exp expand flatten ge greater=gt greater_equal=ge gt le less=lt less_equal=le "
        "linear log log_softmax logical_and logical_not logical_or lt matmul max maximum mean min minimum mm "
        "mul ne neg not_equal=ne permute pow reciprocal relu reshape rsqrt sigmoid sin softmax sqrt square "
        "squeeze stack sub sum t tanh transpose true_divide=div unsqueeze where"
    ),
    "kiln.exchange": "from_dlpack",
    "kiln.gathering": (
        "argwhere bincount gather histc index_add index_copy index_fill index_put index_reduce index_select "
        "masked_fill masked_scatter masked_select nonzero put scatter scatter_add scatter_reduce take "
        "take_along_dim unique unique_consecutive"
    ),
    "kiln.integers": "gcd lcm",
    "kiln.interop": "is_tensor numel",
    "kiln.ir.types": (
        "dtype=DType bool=bool_ uint8 int8 int16 short=int16 int32 int=int32 int64 long=int64 float16 "
        "half=float16 bfloat16 float32 float=float32 float64 double=float64 complex64 cfloat=complex64 "
        "complex128 cdouble=complex128"
    ),
    "kiln.jit": "compile",
    "kiln.legacy": (
        "BFloat16Tensor BoolTensor ByteTensor CharTensor DoubleTensor FloatTensor HalfTensor IntTensor LongTensor "
        "ShortTensor set_default_tensor_type typename"
    ),
    "kiln.linalg": "vander=vander_",
    "kiln.lowrank": "pca_lowrank svd_lowrank",
    "kiln.maths": (
        "acos acosh arccos=acos arccosh=acosh arcsin=asin arcsinh=asinh arctan2=atan2 arctan=atan "
        "arctanh=atanh asin asinh atan atan2 atanh cosh deg2rad digamma erfc erfinv exp2 expm1 hypot lgamma "
        "log10 log1p log2 logaddexp logaddexp2 logit rad2deg sinc sinh tan xlog1py xlogy"
    ),
    "kiln.movement": (
        "adjoint as_strided atleast_1d atleast_2d atleast_3d block_diag broadcast_tensors broadcast_to "
        "cartesian_prod chunk column_stack concat concatenate diag diag_embed diagflat diagonal dsplit dstack "
        "flip fliplr flipud hsplit hstack meshgrid moveaxis movedim narrow ravel repeat_interleave roll rot90 "
        "row_stack=vstack select split swapaxes swapdims tensor_split tile trace tril triu unbind unflatten "
        "vsplit vstack"
    ),
    "kiln.overriding": "DisableTorchFunction DisableTorchFunctionSubclass",
    "kiln.padding": "channel_shuffle pixel_shuffle pixel_unshuffle",
    "kiln.pointwise": (
        "absolute addcdiv addcmul allclose bitwise_left_shift bitwise_right_shift ceil clamp_max clamp_min "
        "clip copysign divide equal fix=trunc float_power floor floor_divide fmax fmin fmod frac heaviside "
        "isclose isfinite isinf isnan isneginf isposinf isreal ldexp lerp logical_xor multiply nan_to_num "
        "negative nextafter positive remainder round sign signbit subtract trunc"
    ),
    "kiln.pooling": (
        "adaptive_avg_pool1d adaptive_max_pool1d=adaptive_max_pool1d_with_indices avg_pool1d max_pool1d "
        "max_pool1d_with_indices max_pool2d max_pool3d"
    ),
    "kiln.printing": "set_printoptions",
    "kiln.promotion": "can_cast get_default_dtype promote_types result_type set_default_dtype",
    "kiln.random": (
        "Generator bernoulli default_generator get_rng_state initial_seed manual_seed multinomial normal "
        "poisson rand rand_like randint randint_like randn randn_like randperm seed set_rng_state"
    ),
    "kiln.ranges": "linspace logspace tril_indices triu_indices",
    "kiln.reductions": (
        "aminmax count_nonzero dist logsumexp median mode nanmean nanmedian nansum norm prod std std_mean var var_mean"
    ),
    "kiln.removed": "eig lstsq matrix_rank solve symeig",
    "kiln.runtime.threads": "get_num_threads set_num_threads",
    "kiln.segments": "binomial histogramdd segment_reduce",
    "kiln.selection": (
        "broadcast_shapes combinations diagonal_scatter histogram isin select_scatter slice_scatter "
        "split_with_sizes unravel_index"
    ),
    "kiln.serialization": "load save",
    "kiln.settings": (
        "are_deterministic_algorithms_enabled get_default_device get_deterministic_debug_mode "
        "get_float32_matmul_precision get_num_interop_threads is_deterministic_algorithms_warn_only_enabled "
        "is_warn_always_enabled set_default_device set_deterministic_debug_mode set_float32_matmul_precision "
        "set_flush_denormal set_num_interop_threads set_warn_always use_deterministic_algorithms"
    ),
    "kiln.sorting": "argsort bucketize kthvalue msort searchsorted sort topk",
    "kiln.special": "i0 igamma=gammainc igammac=gammaincc mvlgamma=multigammaln polygamma",
    "kiln.spectral": "istft stft",
    "kiln.statistics": "corrcoef cov nanquantile quantile",
    "kiln.storage": "TypedStorage UntypedStorage empty_strided frombuffer is_storage",
    "kiln.systems": (
        "cholesky_inverse cholesky_solve det inverse logdet lu_solve=lu_solve_ matrix_exp matrix_power "
        "pinverse slogdet triangular_solve"
    ),
    "kiln.tensor": "Tensor",
    "kiln.windows": "bartlett_window blackman_window hamming_window hann_window kaiser_window",
    "kiln.vmap": "vmap",
}
"""Home module -> the public names that it defines; `name=other` where it is called `other` there.
`tests/frontend/test_import.py` holds this table against TYPE_CHECKING's."""

_HOMES: dict[str, tuple[str, str]] = {
    name.split("=")[0]: (module, name.split("=")[-1]) for module, names in _NAMES.items() for name in names.split()
}
"""Public name -> home module and the name there."""

_MODULES = frozenset(
    {
        "amp",
        "backends",
        "cpu",
        "return_types",
        "special",
        "ir",
        "codegen",
        "runtime",
        "nn",
        "optim",
        "convert",
        "data",
        "distributions",
        "utils",
        "jit",
        "autograd",
        "func",
        "random",
        "errors",
        "cuda",
        "linalg",
        "overrides",
        "testing",
        "version",
        "ops",
        "fft",
        "signal",
    }
)


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
