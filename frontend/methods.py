"""Methods that are public functions under their own names, and those that write their result into the tensor."""

from __future__ import annotations

from kiln import cumulative as C
from kiln import functional as F
from kiln import inplace
from kiln import maths as X
from kiln import pointwise as P
from kiln import reductions as R
from kiln import statistics as S
from kiln.base import TensorBase
from kiln.inplace import variant


class Methods(TensorBase):
    """What `Tensor` inherits; the first operand is the tensor."""

    __slots__ = ()

    # fmt: off
    logical_xor, bitwise_left_shift = P.logical_xor, P.bitwise_left_shift
    bitwise_right_shift, floor, ceil, round = P.bitwise_right_shift, P.floor, P.ceil, P.round
    trunc, fix, frac, floor_divide, remainder = P.trunc, P.fix, P.frac, P.floor_divide, P.remainder
    fmod, sign, positive, absolute = P.fmod, P.sign, P.positive, P.absolute
    negative, signbit, copysign, nextafter = P.negative, P.signbit, P.copysign, P.nextafter
    isnan, isinf, isfinite, isposinf, isneginf = P.isnan, P.isinf, P.isfinite, P.isposinf, P.isneginf
    isreal, isclose, allclose, equal = P.isreal, P.isclose, P.allclose, P.equal
    nan_to_num, clip, clamp_min, clamp_max = P.nan_to_num, P.clip, P.clamp_min, P.clamp_max
    fmax, fmin, heaviside, lerp, addcmul = P.fmax, P.fmin, P.heaviside, P.lerp, P.addcmul
    addcdiv, ldexp, float_power, multiply = P.addcdiv, P.ldexp, P.float_power, P.multiply
    subtract, divide = P.subtract, P.divide

    acos, acosh, asin, asinh, atan, atan2 = X.acos, X.acosh, X.asin, X.asinh, X.atan, X.atan2
    atanh, cosh, deg2rad, erfc, exp2, expm1 = X.atanh, X.cosh, X.deg2rad, X.erfc, X.exp2, X.expm1
    hypot, log10, log1p, log2, logaddexp, logaddexp2 = X.hypot, X.log10, X.log1p, X.log2, X.logaddexp, X.logaddexp2
    logit, rad2deg, sinc, sinh, tan, xlog1py = X.logit, X.rad2deg, X.sinc, X.sinh, X.tan, X.xlog1py
    xlogy, arccos, arccosh, arcsin, arcsinh, arctan = X.xlogy, X.acos, X.acosh, X.asin, X.asinh, X.atan
    arctan2, arctanh, digamma, erfinv, lgamma = X.atan2, X.atanh, X.digamma, X.erfinv, X.lgamma

    aminmax, count_nonzero, dist, logsumexp, median = R.aminmax, R.count_nonzero, R.dist, R.logsumexp, R.median
    mode, nanmean, nanmedian, nansum, norm = R.mode, R.nanmean, R.nanmedian, R.nansum, R.norm
    prod, std, var = R.prod, R.std, R.var
    cummax, cummin, cumprod, cumsum = C.cummax, C.cummin, C.cumprod, C.cumsum
    diff, logcumsumexp = C.diff, C.logcumsumexp

    corrcoef, cov, nanquantile, quantile = S.corrcoef, S.cov, S.nanquantile, S.quantile

    bitwise_and, bitwise_or, bitwise_xor = F.bitwise_and, F.bitwise_or, F.bitwise_xor
    bitwise_not = F.bitwise_not

    greater, greater_equal, less, less_equal, not_equal = F.gt, F.ge, F.lt, F.le, F.ne

    multiply_, divide_, subtract_ = inplace.mul_, inplace.div_, inplace.sub_
    abs_ = variant(F.abs, "abs_")
    neg_ = variant(F.neg, "neg_")
    exp_ = variant(F.exp, "exp_")
    log_ = variant(F.log, "log_")
    sqrt_ = variant(F.sqrt, "sqrt_")
    rsqrt_ = variant(F.rsqrt, "rsqrt_")
    reciprocal_ = variant(F.reciprocal, "reciprocal_")
    square_ = variant(F.square, "square_")
    sin_ = variant(F.sin, "sin_")
    cos_ = variant(F.cos, "cos_")
    tanh_ = variant(F.tanh, "tanh_")
    erf_ = variant(F.erf, "erf_")
    sigmoid_ = variant(F.sigmoid, "sigmoid_")
    relu_ = variant(F.relu, "relu_")
    pow_ = variant(F.pow, "pow_")
    clamp_ = variant(F.clamp, "clamp_")
    eq_ = variant(F.eq, "eq_")
    ne_ = variant(F.ne, "ne_")
    lt_ = variant(F.lt, "lt_")
    le_ = variant(F.le, "le_")
    gt_ = variant(F.gt, "gt_")
    ge_ = variant(F.ge, "ge_")
    bitwise_and_ = variant(F.bitwise_and, "bitwise_and_")
    bitwise_or_ = variant(F.bitwise_or, "bitwise_or_")
    bitwise_xor_ = variant(F.bitwise_xor, "bitwise_xor_")
    bitwise_not_ = variant(F.bitwise_not, "bitwise_not_")
    logical_and_ = variant(F.logical_and, "logical_and_")
    logical_or_ = variant(F.logical_or, "logical_or_")
    logical_not_ = variant(F.logical_not, "logical_not_")
    clip_ = variant(P.clip, "clip_")
    clamp_min_ = variant(P.clamp_min, "clamp_min_")
    clamp_max_ = variant(P.clamp_max, "clamp_max_")
    floor_ = variant(P.floor, "floor_")
    ceil_ = variant(P.ceil, "ceil_")
    round_ = variant(P.round, "round_")
    trunc_ = variant(P.trunc, "trunc_")
    fix_ = variant(P.fix, "fix_")
    frac_ = variant(P.frac, "frac_")
    floor_divide_ = variant(P.floor_divide, "floor_divide_")
    remainder_ = variant(P.remainder, "remainder_")
    fmod_ = variant(P.fmod, "fmod_")
    sign_ = variant(P.sign, "sign_")
    copysign_ = variant(P.copysign, "copysign_")
    absolute_ = variant(P.absolute, "absolute_")
    negative_ = variant(P.negative, "negative_")
    nan_to_num_ = variant(P.nan_to_num, "nan_to_num_")
    lerp_ = variant(P.lerp, "lerp_")
    addcmul_ = variant(P.addcmul, "addcmul_")
    addcdiv_ = variant(P.addcdiv, "addcdiv_")
    ldexp_ = variant(P.ldexp, "ldexp_")
    float_power_ = variant(P.float_power, "float_power_")
    bitwise_left_shift_ = variant(P.bitwise_left_shift, "bitwise_left_shift_")
    bitwise_right_shift_ = variant(P.bitwise_right_shift, "bitwise_right_shift_")
    logical_xor_ = variant(P.logical_xor, "logical_xor_")
    heaviside_ = variant(P.heaviside, "heaviside_")
    nextafter_ = variant(P.nextafter, "nextafter_")
    acos_ = variant(X.acos, "acos_")
    acosh_ = variant(X.acosh, "acosh_")
    asin_ = variant(X.asin, "asin_")
    asinh_ = variant(X.asinh, "asinh_")
    atan_ = variant(X.atan, "atan_")
    atan2_ = variant(X.atan2, "atan2_")
    atanh_ = variant(X.atanh, "atanh_")
    cosh_ = variant(X.cosh, "cosh_")
    deg2rad_ = variant(X.deg2rad, "deg2rad_")
    erfc_ = variant(X.erfc, "erfc_")
    exp2_ = variant(X.exp2, "exp2_")
    expm1_ = variant(X.expm1, "expm1_")
    hypot_ = variant(X.hypot, "hypot_")
    log10_ = variant(X.log10, "log10_")
    log1p_ = variant(X.log1p, "log1p_")
    log2_ = variant(X.log2, "log2_")
    logit_ = variant(X.logit, "logit_")
    rad2deg_ = variant(X.rad2deg, "rad2deg_")
    sinc_ = variant(X.sinc, "sinc_")
    sinh_ = variant(X.sinh, "sinh_")
    tan_ = variant(X.tan, "tan_")
    xlogy_ = variant(X.xlogy, "xlogy_")
    digamma_ = variant(X.digamma, "digamma_")
    erfinv_ = variant(X.erfinv, "erfinv_")
    lgamma_ = variant(X.lgamma, "lgamma_")
    cumsum_ = variant(C.cumsum, "cumsum_")
    cumprod_ = variant(C.cumprod, "cumprod_")
    greater_, greater_equal_, less_, less_equal_, not_equal_, true_divide_ = gt_, ge_, lt_, le_, ne_, inplace.div_
    arccos_, arccosh_, arcsin_, arcsinh_ = acos_, acosh_, asin_, asinh_
    arctan_, arctan2_, arctanh_ = atan_, atan2_, atanh_
    # fmt: on
