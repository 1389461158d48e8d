"""Cases that `tests/tools/make_nn_golden.py` runs in PyTorch and `test_golden.py` in kiln.

A case is (what, arguments, keyword arguments, inputs, options). `what` names a class of nn, or with "F." a function of
nn.functional, which gets the inputs before the arguments. Inputs are written as "kind shape": `f` standard normal,
`p` in (0, 1), `lp` their logarithm, `c5` classes below 5, `s` plus or minus 1, `b` bools, `m` 0 or minus infinity,
`dist` rows that sum to 1. A trailing "!" means that no gradient is wanted. {"tensor": "kind shape"} stands for such a
tensor among the arguments. Options: `eval`, `calls` (of the module one after the other, the last one is compared).
"""

from __future__ import annotations

from typing import Any

Case = tuple[str, list[Any], dict[str, Any], list[str], dict[str, Any]]

CASES: dict[str, Case] = {}


def _add(name: str, what: str, args: list[Any], inputs: list[str], options: Any = None, **kwargs: Any) -> None:
    assert name not in CASES, name
    CASES[name] = (what, args, kwargs, inputs, options or {})


EVAL = {"eval": True}

# ------------------------------------------------------------------------------------- linear and norms

_add("linear", "Linear", [3, 4], ["f 2,5,3"])
_add("linear_nobias", "Linear", [3, 4], ["f 3"], bias=False)
_add("bilinear", "Bilinear", [3, 2, 4], ["f 5,3", "f 5,2"])
_add("bilinear_batch", "Bilinear", [3, 2, 4], ["f 2,3,3", "f 2,3,2"], bias=False)
_add("flatten", "Flatten", [], ["f 2,3,4"])
_add("unflatten", "Unflatten", [1, [2, -1]], ["f 2,6,2"])
_add("cosine", "CosineSimilarity", [], ["f 4,3", "f 4,3"])
_add("cosine_dim0", "CosineSimilarity", [], ["f 4,3", "f 1,3"], dim=0)
for _p in (0.5, 1.0, 2.0, 3.0, float("inf")):
    _add(f"pairwise_{_p}", "PairwiseDistance", [], ["f 4,3", "f 4,3"], p=_p)
    _add(f"normalize_{_p}", "F.normalize", [], ["f 3,4,2"], p=_p)
_add("pairwise_keep", "PairwiseDistance", [], ["f 4,3", "f 3"], keepdim=True)
for _mode, _options in (("train", {"calls": 3}), ("eval", EVAL)):
    _add(f"batchnorm1d_{_mode}", "BatchNorm1d", [3], ["f 5,3"], _options)
    _add(f"batchnorm1d_3d_{_mode}", "BatchNorm1d", [3], ["f 2,3,4"], _options, momentum=None)
    _add(f"batchnorm2d_{_mode}", "BatchNorm2d", [3], ["f 2,3,2,2"], _options, momentum=0.3, eps=0.01)
    _add(f"batchnorm_untracked_{_mode}", "BatchNorm1d", [3], ["f 5,3"], _options, track_running_stats=False)
    _add(f"batchnorm_plain_{_mode}", "BatchNorm3d", [2], ["f 2,2,1,2,2"], _options, affine=False)
    _add(f"batchnorm_nobias_{_mode}", "BatchNorm1d", [3], ["f 5,3"], _options, bias=False)
    _add(f"instancenorm1d_{_mode}", "InstanceNorm1d", [3], ["f 2,3,4"], _options)
    _add(f"instancenorm1d_single_{_mode}", "InstanceNorm1d", [3], ["f 3,4"], _options, affine=True)
    _add(f"instancenorm2d_{_mode}", "InstanceNorm2d", [3], ["f 2,3,2,3"], _options, affine=True,
         track_running_stats=True)  # fmt: skip
    _add(f"instancenorm3d_{_mode}", "InstanceNorm3d", [2], ["f 2,2,1,2,2"], _options)
_add("layernorm", "LayerNorm", [4], ["f 2,3,4"])
_add("layernorm_2d", "LayerNorm", [[3, 4]], ["f 2,3,4"], eps=0.1)
_add("layernorm_nobias", "LayerNorm", [4], ["f 4"], bias=False)
_add("layernorm_plain", "LayerNorm", [4], ["f 3,4"], elementwise_affine=False)
_add("rmsnorm", "RMSNorm", [4], ["f 2,3,4"])
_add("rmsnorm_2d", "RMSNorm", [[3, 4]], ["f 2,3,4"], eps=0.1, elementwise_affine=False)
_add("groupnorm", "GroupNorm", [2, 4], ["f 2,4,3"])
_add("groupnorm_2d", "GroupNorm", [4, 4], ["f 2,4,2,2"], affine=False)
_add("groupnorm_flat", "GroupNorm", [1, 4], ["f 3,4"], eps=0.1)
_add("lrn", "LocalResponseNorm", [3], ["f 2,5,3"], alpha=0.3, beta=0.6, k=1.5)
_add("lrn_even", "LocalResponseNorm", [2], ["f 2,4,2,2"], alpha=0.5)

# ---------------------------------------------------------------------------------------------- activations

for _name in ("ReLU", "GELU", "Tanh", "Sigmoid", "Softmax2d"):
    _add(_name.lower(), _name, [], ["f 2,3,2,2"])
_add("gelu_tanh", "GELU", [], ["f 3,4"], approximate="tanh")
for _name in ("Softmax", "LogSoftmax", "Softmin"):
    _add(_name.lower(), _name, [1], ["f 2,3,4"])

# ------------------------------------------------------------------- dropout without chance (p 0 or 1, eval)

for _name, _shape in (("Dropout", "2,3"), ("Dropout1d", "2,3,4"), ("Dropout2d", "2,3,2,2"), ("AlphaDropout", "2,3")):
    _add(f"{_name.lower()}_eval", _name, [0.4], [f"f {_shape}"], EVAL)
    _add(f"{_name.lower()}_all", _name, [1.0], [f"f {_shape}"])
    _add(f"{_name.lower()}_none", _name, [0.0], [f"f {_shape}"])
