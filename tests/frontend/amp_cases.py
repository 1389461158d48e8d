"""Calls of functions in autocast regions, for PyTorch (`tests/tools/make_autocast.py`) and kiln (`test_amp.py`) alike.

A line: name, expression, shapes of the operands a, b, c. The name is that of `kiln.casting`'s tables, with something
behind a colon where there are several calls. In the expression `t` is the library, `F` its nn.functional, `i(...)` a
tensor of integers. Operands hold numbers between 0 and 1; a shape with `+` behind it is a matrix that can be inverted.
"""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple


class Case(NamedTuple):
    """One call."""

    name: str
    text: str
    shapes: tuple[tuple[int, ...], ...]
    regular: tuple[bool, ...]


TEXT = """
addbmm   t.addbmm(a, b, c)   2,4 3,2,5 3,5,4
addmm   t.addmm(a, b, c)   2,4 2,3 3,4
addmv   t.addmv(a, b, c)   2 2,3 3
addr   t.addr(a, b, c)   2,3 2 3
baddbmm   t.baddbmm(a, b, c)   3,2,4 3,2,5 3,5,4
bmm   t.bmm(a, b)   3,2,5 3,5,4
chain_matmul   t.chain_matmul(a, b)   2,3 3,4
conv1d   F.conv1d(a, b, c)   1,2,5 3,2,2 3
conv1d:same   F.conv1d(a, b, padding="same")   1,2,5 3,2,3
conv2d   F.conv2d(a, b, c)   1,2,5,5 3,2,2,2 3
conv3d   F.conv3d(a, b, c)   1,2,3,3,3 3,2,2,2,2 3
conv_tbc   t.conv_tbc(a, b, c)   5,1,2 2,2,3 3
conv_transpose1d   F.conv_transpose1d(a, b, c)   1,2,5 2,3,2 3
conv_transpose2d   F.conv_transpose2d(a, b, c)   1,2,3,3 2,3,2,2 3
conv_transpose3d   F.conv_transpose3d(a, b, c)   1,2,2,2,2 2,3,2,2,2 3
einsum   t.einsum("ij,jk->ik", a, b)   2,3 3,4
einsum:outer   t.einsum("i,j->ij", a, b)   2 3
linalg.multi_dot   t.linalg.multi_dot([a, b, c])   2,3 3,4 4,2
linalg.vecdot   t.linalg.vecdot(a, b)   2,3 2,3
linear   F.linear(a, b, c)   2,3 4,3 4
matmul   t.matmul(a, b)   2,3 3,4
matmul:operator   a @ b   2,3 3,4
matmul:vectors   t.matmul(a, b)   3 3
matmul:method   a.matmul(b)   2,3 3
mm   t.mm(a, b)   2,3 3,4
mv   t.mv(a, b)   2,3 3
prelu   F.prelu(a, b)   2,3 1
scaled_dot_product_attention   F.scaled_dot_product_attention(a, b, c)   2,3,4 2,5,4 2,5,4
gru_cell   t.gru_cell(a, b, t.cat([c] * 3), t.cat([c] * 3), t.cat([c[0]] * 3), t.cat([c[0]] * 3))   2,3 2,3 3,3
lstm_cell   t.lstm_cell(a, (b, b), t.cat([c] * 4), t.cat([c] * 4), t.cat([c[0]] * 4), t.cat([c[0]] * 4))   2,3 2,3 3,3
rnn_relu_cell   t.rnn_relu_cell(a, b, c, c, c[0], c[0])   2,3 2,3 3,3
rnn_tanh_cell   t.rnn_tanh_cell(a, b, c, c, c[0], c[0])   2,3 2,3 3,3

binary_cross_entropy_with_logits   F.binary_cross_entropy_with_logits(a, b)   2,3 2,3
cosine_embedding_loss   F.cosine_embedding_loss(a, b, i(1, -1))   2,3 2,3
cross_entropy   F.cross_entropy(a, i(1, 0))   2,3
cross_entropy:soft   F.cross_entropy(a, b)   2,3 2,3
hinge_embedding_loss   F.hinge_embedding_loss(a, i(1, -1))   2
huber_loss   F.huber_loss(a, b)   2,3 2,3
kl_div   F.kl_div(a, b, reduction="sum")   2,3 2,3
l1_loss   F.l1_loss(a, b)   2,3 2,3
margin_ranking_loss   F.margin_ranking_loss(a, b, i(1, -1))   2 2
mse_loss   F.mse_loss(a, b)   2,3 2,3
multi_margin_loss   F.multi_margin_loss(a, i(1, 0))   2,3
multilabel_margin_loss   F.multilabel_margin_loss(a, i(1, -1, 0))   3
nll_loss   F.nll_loss(a, i(1, 0))   2,3
nll_loss:2d   F.nll_loss(a, i(1).reshape(1, 1, 1))   1,3,1,1
poisson_nll_loss   F.poisson_nll_loss(a, b)   2,3 2,3
smooth_l1_loss   F.smooth_l1_loss(a, b)   2,3 2,3
soft_margin_loss   F.soft_margin_loss(a, i(1, -1))   2
triplet_margin_loss   F.triplet_margin_loss(a, b, c)   2,3 2,3 2,3
binary_cross_entropy   F.binary_cross_entropy(a, b)   2,3 2,3
gaussian_nll_loss   F.gaussian_nll_loss(a, b, c)   2,3 2,3 2,3
multilabel_soft_margin_loss   F.multilabel_soft_margin_loss(a, b)   2,3 2,3

adaptive_avg_pool3d   F.adaptive_avg_pool3d(a, 1)   1,2,2,2,2
adaptive_max_pool3d   F.adaptive_max_pool3d(a, 1)   1,2,2,2,2
adaptive_max_pool3d_with_indices   F.adaptive_max_pool3d(a, 1, return_indices=True)   1,2,2,2,2
avg_pool3d   F.avg_pool3d(a, 2)   1,2,2,2,2
max_pool3d   F.max_pool3d(a, 2)   1,2,2,2,2
max_pool3d_with_indices   F.max_pool3d(a, 2, return_indices=True)   1,2,2,2,2
max_pool2d   F.max_pool2d(a, 2)   1,2,2,2
avg_pool2d   F.avg_pool2d(a, 2)   1,2,2,2
fractional_max_pool2d   F.fractional_max_pool2d(a, 2, output_size=2)   1,2,4,4
fractional_max_pool2d_with_indices   F.fractional_max_pool2d(a, 2, output_size=2, return_indices=True)   1,2,4,4
fractional_max_pool3d   F.fractional_max_pool3d(a, 2, output_size=2)   1,2,4,4,4
fractional_max_pool3d_with_indices   F.fractional_max_pool3d(a, 2, output_size=2, return_indices=True)   1,2,4,4,4
max_unpool1d   F.max_unpool1d(a, i(1, 2).reshape(1, 1, 2), 2)   1,1,2
max_unpool2d   F.max_unpool2d(a, i(1).reshape(1, 1, 1, 1), 2)   1,1,1,1
max_unpool3d   F.max_unpool3d(a, i(1).reshape(1, 1, 1, 1, 1), 2)   1,1,1,1,1
grid_sample   F.grid_sample(a, b, align_corners=False)   1,2,3,3 1,2,2,2
pad:reflect   F.pad(a, (1, 1), mode="reflect")   1,2,3
pad:replicate   F.pad(a, (1, 1), mode="replicate")   1,2,3
pad:reflect3d   F.pad(a, (1, 1, 1, 1, 1, 1), mode="reflect")   1,2,3,3,3
pad:constant   F.pad(a, (1, 1))   1,2,3
interpolate   F.interpolate(a, scale_factor=2)   1,2,3
interpolate:bilinear   F.interpolate(a, scale_factor=2, mode="bilinear")   1,2,3,3
upsample_nearest   F.upsample_nearest(a, scale_factor=2)   1,2,3,3
upsample_bilinear   F.upsample_bilinear(a, scale_factor=2)   1,2,3,3
upsample   F.upsample(a, scale_factor=2)   1,2,3

cdist   t.cdist(a, b)   2,3 4,3
ctc_loss   F.ctc_loss(a, i(1, 2).reshape(1, 2), i(4), i(2))   4,1,3
nanquantile   t.nanquantile(a, 0.5)   5
quantile   t.quantile(a, 0.5)   5
prod   t.prod(a)   5
prod:dtype   t.prod(a, dtype=t.float64)   5
prod:dim   a.prod(0)   2,3
trace   t.trace(a)   3,3
polar   t.polar(a, b)   3 3
view_as_complex   t.view_as_complex(a)   3,2
stft   t.stft(a, 4, return_complex=True, window=b)   16 4

cholesky   t.cholesky(a)   3,3+
cholesky_inverse   t.cholesky_inverse(a)   3,3+
cholesky_solve   t.cholesky_solve(b, a)   3,3+ 3,2
inverse   t.inverse(a)   3,3+
pinverse   t.pinverse(a)   3,3+
qr   t.qr(a)   3,3+
svd   t.svd(a)   3,3+
lu   t.lu(a)   3,3+
lu_solve   t.lu_solve(b, a, i(1, 2, 3).to(t.int32))   3,3+ 3,2
orgqr   t.orgqr(a, b)   3,3+ 3
triangular_solve   t.triangular_solve(b, a)   3,3+ 3,2
linalg.cholesky   t.linalg.cholesky(a)   3,3+
linalg.cholesky_ex   t.linalg.cholesky_ex(a)   3,3+
linalg.cond   t.linalg.cond(a)   3,3+
linalg.eig   t.linalg.eig(a)   3,3+
linalg.eigh   t.linalg.eigh(a)   3,3+
linalg.eigvals   t.linalg.eigvals(a)   3,3+
linalg.eigvalsh   t.linalg.eigvalsh(a)   3,3+
linalg.inv   t.linalg.inv(a)   3,3+
linalg.inv_ex   t.linalg.inv_ex(a)   3,3+
linalg.lstsq   t.linalg.lstsq(a, b)   3,3+ 3,2
linalg.matrix_rank   t.linalg.matrix_rank(a)   3,3+
linalg.qr   t.linalg.qr(a)   3,3+
linalg.solve   t.linalg.solve(a, b)   3,3+ 3,2
linalg.svd   t.linalg.svd(a)   3,3+
linalg.svdvals   t.linalg.svdvals(a)   3,3+
linalg.tensorinv   t.linalg.tensorinv(a, ind=1)   3,3+
linalg.tensorsolve   t.linalg.tensorsolve(a, b)   3,3+ 3

acos   t.acos(a)   3
acos:alias   t.arccos(a)   3
asin   t.asin(a)   3
cosh   t.cosh(a)   3
erfinv   t.erfinv(a)   3
exp   t.exp(a)   3
exp:method   a.exp()   3
expm1   t.expm1(a)   3
log   t.log(a)   3
log10   t.log10(a)   3
log1p   t.log1p(a)   3
log2   t.log2(a)   3
pow   t.pow(a, 2)   3
pow:operator   a ** 2   3
pow:tensors   t.pow(a, b)   3 3
pow:number   2 ** a   3
reciprocal   t.reciprocal(a)   3
div:number   1 / a   3
div   a / b   3 3
rsqrt   t.rsqrt(a)   3
sinh   t.sinh(a)   3
square   t.square(a)   3
tan   t.tan(a)   3
softplus   F.softplus(a)   3
cosine_similarity   F.cosine_similarity(a, b)   2,3 2,3
cumulative_trapezoid   t.cumulative_trapezoid(a)   3
trapezoid   t.trapezoid(a)   3
dist   t.dist(a, b)   3 3
frobenius_norm   t.frobenius_norm(a, (0, 1))   2,3
nuclear_norm   t.nuclear_norm(a)   3,3+
group_norm   F.group_norm(a, 2, b, b)   1,2,3 2
layer_norm   F.layer_norm(a, (3,), b, b)   2,3 3
rms_norm   F.rms_norm(a, (3,), b)   2,3 3
batch_norm   F.batch_norm(a, None, None, b, b, True)   3,2 2
instance_norm   F.instance_norm(a)   1,2,3
local_response_norm   F.local_response_norm(a, 2)   1,2,3
normalize   F.normalize(a)   2,3
gumbel_softmax   F.gumbel_softmax(a)   2,3
softmin   F.softmin(a, 0)   3
linalg.norm   t.linalg.norm(a)   2,3
linalg.matrix_norm   t.linalg.matrix_norm(a)   2,3
linalg.vector_norm   t.linalg.vector_norm(a)   3
linalg.vander   t.linalg.vander(a)   3
vander   t.vander(a)   3
norm   t.norm(a)   3
norm:p   t.norm(a, 1, 0)   2,3
logsumexp   t.logsumexp(a, 0)   3
pairwise_distance   F.pairwise_distance(a, b)   2,3 2,3
pdist   t.pdist(a)   3,2
renorm   t.renorm(a, 2, 0, 1.0)   2,3
sum_to_size   a.sum_to_size(1, 3)   2,3
cumprod   t.cumprod(a, 0)   3
cumsum   t.cumsum(a, 0)   3
cumsum:dtype   t.cumsum(a, 0, dtype=t.float64)   3
log_softmax   t.log_softmax(a, 0)   3
log_softmax:function   F.log_softmax(a, 0)   3
softmax   t.softmax(a, 0)   3
softmax:method   a.softmax(0)   3
softmax:dtype   F.softmax(a, 0, dtype=t.float64)   3
sum   t.sum(a)   3
sum:dim   a.sum(0)   2,3
sum:dtype   t.sum(a, dtype=t.float64)   3
mean   t.mean(a)   3
var   t.var(a)   3
gelu   F.gelu(a)   3
silu   F.silu(a)   3
sigmoid   t.sigmoid(a)   3
tanh   t.tanh(a)   3
relu   F.relu(a)   3
add   a + b   3 3
mul   a * b   3 3
sqrt   t.sqrt(a)   3
embedding   F.embedding(i(0, 1), a)   2,3

addcdiv   t.addcdiv(a, b, c)   3 3 3
addcmul   t.addcmul(a, b, c)   3 3 3
atan2   t.atan2(a, b)   3 3
bilinear   F.bilinear(a, b, c)   2,3 2,3 1,3,3
cat   t.cat([a, b])   3 3
stack   t.stack([a, b])   3 3
cross   t.cross(a, b, dim=0)   3 3
dot   t.dot(a, b)   3 3
vdot   t.vdot(a, b)   3 3
index_copy   t.index_copy(a, 0, i(0, 1), b)   3 2
index_put   t.index_put(a, (i(0, 1),), b)   3 2
scatter_add   t.scatter_add(a, 0, i(0, 1), b)   3 2
tensordot   t.tensordot(a, b, 1)   2,3 3,2

inner   t.inner(a, b)   2,3 2,3
outer   t.outer(a, b)   2 3
cov   t.cov(a)   2,3
corrcoef   t.corrcoef(a)   2,3
linalg.matrix_power   t.linalg.matrix_power(a, 3)   3,3+
linalg.cross   t.linalg.cross(a, b)   3 3
addmm_   a.addmm_(b, c)   2,4 2,3 3,4
exp_   a.exp_()   3
fft.fft   t.fft.fft(a)   4
fft.fft2   t.fft.fft2(a)   4,4
fft.fftn   t.fft.fftn(a)   4,4
fft.hfft   t.fft.hfft(a)   4
fft.ifft   t.fft.ifft(a)   4
fft.ifft2   t.fft.ifft2(a)   4,4
fft.ifftn   t.fft.ifftn(a)   4,4
fft.ihfft   t.fft.ihfft(a)   4
fft.irfft   t.fft.irfft(a)   4
fft.irfft2   t.fft.irfft2(a)   4,4
fft.irfftn   t.fft.irfftn(a)   4,4
fft.rfft   t.fft.rfft(a)   4
fft.rfft2   t.fft.rfft2(a)   4,4
fft.rfftn   t.fft.rfftn(a)   4,4
"""


def _case(line: str) -> Case:
    name, text, shapes = re.split(" {3,}", line)
    each = shapes.split()
    sizes = tuple(tuple(map(int, s.rstrip("+").split(","))) for s in each)
    return Case(name, text, sizes, tuple(s.endswith("+") for s in each))


CASES = [_case(line) for line in TEXT.splitlines() if line]

MIXES = ("float32", "low", "mixed", "float64")
"""What the operands are: all of one dtype, or the first of 16 bits and the others float32."""


def numbers(shape: tuple[int, ...], regular: bool) -> list[float]:
    """The elements of an operand."""
    found = [(k * 7 % 11 + 1) / 13 for k in range(math.prod(shape))]
    return [x + 2 * (k % (shape[0] + 1) == 0) for k, x in enumerate(found)] if regular else found


def value(case: Case, names: dict[str, Any], operands: list[Any]) -> Any:
    """What the call gives."""
    return eval(case.text, names | dict(zip("abc", operands, strict=False)))
