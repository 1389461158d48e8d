"""Methods of tensors as functions of kiln's: `kiln.relu_(x)` is `x.relu_()`."""

from __future__ import annotations

from kiln.tensor import Tensor as T

__all__ = [
    "abs_", "acos_", "acosh_", "addmv_", "arccos_", "arccosh_", "arcsin_", "arcsinh_", "arctan_", "arctanh_",
    "as_strided_", "asin_", "asinh_", "atan_", "atanh_", "ceil_", "clamp_", "clamp_max_", "clamp_min_", "clip_",
    "conj_physical_", "cos_", "cosh_", "deg2rad_", "detach", "detach_", "erf_", "erfc_", "exp2_", "exp_", "expm1_",
    "fill_", "fix_", "floor_", "frac_", "gcd_", "get_device", "i0_", "index_put_", "is_inference", "is_nonzero",
    "is_same_size", "is_signed", "lcm_", "ldexp_", "log1p_", "log2_", "log10_", "log_", "logit_", "nan_to_num_",
    "neg_", "negative_", "rad2deg_", "reciprocal_", "relu_", "resize_as_", "round_", "rsqrt_", "sigmoid_", "sin_",
    "sinc_", "sinh_", "sqrt_", "square_", "tan_", "tanh_", "trunc_", "xlogy_", "zero_",
]  # fmt: skip

# fmt: off
abs_, acos_, acosh_, addmv_, arccos_, arccosh_ = T.abs_, T.acos_, T.acosh_, T.addmv_, T.arccos_, T.arccosh_
arcsin_, arcsinh_, arctan_, arctanh_, as_strided_ = T.arcsin_, T.arcsinh_, T.arctan_, T.arctanh_, T.as_strided_
asin_, asinh_, atan_, atanh_, ceil_, clamp_ = T.asin_, T.asinh_, T.atan_, T.atanh_, T.ceil_, T.clamp_
clamp_max_, clamp_min_, clip_, conj_physical_ = T.clamp_max_, T.clamp_min_, T.clip_, T.conj_physical_
cos_, cosh_, deg2rad_, erf_, erfc_, exp2_ = T.cos_, T.cosh_, T.deg2rad_, T.erf_, T.erfc_, T.exp2_
gcd_, lcm_, i0_ = T.gcd_, T.lcm_, T.i0_
exp_, expm1_, fill_, fix_, floor_, frac_ = T.exp_, T.expm1_, T.fill_, T.fix_, T.floor_, T.frac_
index_put_, ldexp_, log10_, log1p_, log2_, log_ = T.index_put_, T.ldexp_, T.log10_, T.log1p_, T.log2_, T.log_
logit_, nan_to_num_, neg_, negative_, rad2deg_ = T.logit_, T.nan_to_num_, T.neg_, T.negative_, T.rad2deg_
reciprocal_, relu_, resize_as_, round_, rsqrt_ = T.reciprocal_, T.relu_, T.resize_as_, T.round_, T.rsqrt_
sigmoid_, sin_, sinc_, sinh_, sqrt_, square_ = T.sigmoid_, T.sin_, T.sinc_, T.sinh_, T.sqrt_, T.square_
tan_, tanh_, trunc_, xlogy_, zero_ = T.tan_, T.tanh_, T.trunc_, T.xlogy_, T.zero_
gcd_, i0_, lcm_ = T.gcd_, T.i0_, T.lcm_
detach, detach_, get_device, is_inference = T.detach, T.detach_, T.get_device, T.is_inference
is_nonzero, is_same_size, is_signed = T.is_nonzero, T.is_same_size, T.is_signed
# fmt: on
