"""Cases that `tests/tools/make_nn_golden.py` runs in PyTorch and `test_golden.py` in kiln.

A case is (what, arguments, keyword arguments, inputs, options). `what` names a class of nn, or with "F." a function of
nn.functional, which gets the inputs before the arguments. Inputs are written as "kind shape": `f` standard normal,
`p` in (0, 1), `lp` their logarithm, `c5` classes below 5, `s` plus or minus 1, `b` bools, `m` 0 or minus infinity,
`dist` rows that sum to 1, `o` these int64 numbers. A trailing "!" means that no gradient is wanted; a list of inputs
stands for a tuple of them. {"tensor": "kind shape"} stands for such a tensor among the arguments.

Options: `eval`, `calls` (of the module one after the other, the last one is compared), `call` (keyword arguments of the
module's call), `refused` (by a capture whose results want gradients: a part of the message).
"""

from __future__ import annotations

from typing import Any

Case = tuple[str, list[Any], dict[str, Any], list[Any], dict[str, Any]]

CASES: dict[str, Case] = {}


def _add(name: str, what: str, args: list[Any], inputs: list[Any], options: Any = None, **kwargs: Any) -> None:
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

for _name in ("ReLU6", "Hardsigmoid", "Hardswish", "SELU", "SiLU", "Mish", "LogSigmoid", "Softsign", "Tanhshrink",
              "ELU", "CELU", "LeakyReLU", "Softplus", "Hardtanh", "Hardshrink", "Softshrink", "PReLU"):  # fmt: skip
    _add(_name.lower(), _name, [], ["f 4,5"])
_add("elu_alpha", "ELU", [0.7], ["f 4,5"])
_add("celu_alpha", "CELU", [0.7], ["f 4,5"])
_add("leaky_slope", "LeakyReLU", [0.3], ["f 4,5"])
_add("softplus_beta", "Softplus", [2.0, 1.0], ["f 4,5"])
_add("hardtanh_range", "Hardtanh", [-0.4, 0.6], ["f 4,5"])
_add("threshold", "Threshold", [0.1, -3.0], ["f 4,5"])
_add("prelu_channels", "PReLU", [3], ["f 2,3,4"])
_add("glu", "GLU", [1], ["f 2,4,3"])
_add("rrelu_eval", "RReLU", [0.1, 0.5], ["f 4,5"], EVAL)

# ------------------------------------------------------------------- dropout without chance (p 0 or 1, eval)

for _name, _shape in (("Dropout", "2,3"), ("Dropout1d", "2,3,4"), ("Dropout2d", "2,3,2,2"), ("AlphaDropout", "2,3")):
    _add(f"{_name.lower()}_eval", _name, [0.4], [f"f {_shape}"], EVAL)
    _add(f"{_name.lower()}_all", _name, [1.0], [f"f {_shape}"])
    _add(f"{_name.lower()}_none", _name, [0.0], [f"f {_shape}"])

# --------------------------------------------------------------------------------------------------- losses

_LOSSES: list[tuple[str, list[str], dict[str, Any]]] = [
    ("L1Loss", ["f 3,4", "f 3,4"], {}),
    ("MSELoss", ["f 3,4", "f 3,4"], {}),
    ("SmoothL1Loss", ["f 3,4", "f 3,4"], {"beta": 0.5}),
    ("HuberLoss", ["f 3,4", "f 3,4"], {"delta": 0.7}),
    ("NLLLoss", ["lp 5,4", "c4 5"], {}),
    ("CrossEntropyLoss", ["f 5,4", "c4 5"], {}),
    ("BCELoss", ["p 3,4", "p 3,4"], {}),
    ("BCEWithLogitsLoss", ["f 3,4", "p 3,4"], {}),
    ("KLDivLoss", ["lp 3,4", "p 3,4"], {}),
    ("PoissonNLLLoss", ["f 3,4", "p 3,4"], {}),
    ("GaussianNLLLoss", ["f 3,4", "f 3,4", "p 3,4"], {}),
    ("HingeEmbeddingLoss", ["f 3,4", "s 3,4"], {"margin": 0.8}),
    ("CosineEmbeddingLoss", ["f 4,3", "f 4,3", "s 4!"], {"margin": 0.1}),
    ("MarginRankingLoss", ["f 5", "f 5", "s 5!"], {"margin": 0.3}),
    ("TripletMarginLoss", ["f 4,3", "f 4,3", "f 4,3"], {}),
    ("TripletMarginWithDistanceLoss", ["f 4,3", "f 4,3", "f 4,3"], {}),
    ("SoftMarginLoss", ["f 3,4", "s 3,4!"], {}),
    ("MultiLabelSoftMarginLoss", ["f 3,4", "p 3,4!"], {}),
    ("MultiMarginLoss", ["f 5,4", "c4 5"], {}),
]
for _what, _inputs, _kwargs in _LOSSES:
    for _reduction in ("mean", "sum", "none"):
        _add(f"{_what}_{_reduction}", _what, [], _inputs, None, reduction=_reduction, **_kwargs)

_W = {"weight": {"tensor": "p 4"}}
for _reduction in ("mean", "sum", "none"):
    _add(f"nll_weighted_{_reduction}", "NLLLoss", [], ["lp 2,4,3", "c4 2,3"], None, ignore_index=2,
         reduction=_reduction, **_W)  # fmt: skip
    _add(f"ce_all_{_reduction}", "CrossEntropyLoss", [], ["f 2,4,3,2", "c4 2,3,2"], None, ignore_index=1,
         label_smoothing=0.2, reduction=_reduction, **_W)  # fmt: skip
    _add(f"ce_smooth_{_reduction}", "CrossEntropyLoss", [], ["f 6,4", "c4 6"], None, ignore_index=1,
         label_smoothing=0.1, reduction=_reduction)  # fmt: skip
    _add(f"ce_prob_{_reduction}", "CrossEntropyLoss", [], ["f 3,4,2", "dist 3,4,2"], None, label_smoothing=0.3,
         reduction=_reduction, **_W)  # fmt: skip
    _add(f"multimargin_{_reduction}", "MultiMarginLoss", [], ["f 5,4", "c4 5"], None, p=2, margin=0.6,
         reduction=_reduction, **_W)  # fmt: skip
    _add(f"kl_log_{_reduction}", "KLDivLoss", [], ["lp 3,4", "lp 3,4"], None, log_target=True, reduction=_reduction)
_add("ce_vector", "CrossEntropyLoss", [], ["f 4", "c4"])
_add("ce_prob_vector", "CrossEntropyLoss", [], ["f 4", "p 4"])
_add("kl_batchmean", "KLDivLoss", [], ["lp 3,4", "p 3,4"], reduction="batchmean")
_add("bce_weight", "BCELoss", [], ["p 3,4", "p 3,4"], weight={"tensor": "p 4"})
_add("bce_logits_weights", "BCEWithLogitsLoss", [], ["f 3,4", "p 3,4"], weight={"tensor": "p 3,1"},
     pos_weight={"tensor": "p 4"})  # fmt: skip
_add("poisson_plain", "PoissonNLLLoss", [], ["p 3,4", "p 3,4"], log_input=False)
_add("poisson_full", "F.poisson_nll_loss", [], ["f 3", "c7 3"], full=True)
_add("gaussian_full", "GaussianNLLLoss", [], ["f 3,4", "f 3,4", "p 3,1"], full=True, eps=0.4)
_add("gaussian_number", "F.gaussian_nll_loss", [0.7], ["f 3,4", "f 3,4"])
_add("gaussian_rows", "GaussianNLLLoss", [], ["f 3,4", "f 3,4", "p 3"])
_add("cosine_embedding_vector", "CosineEmbeddingLoss", [], ["f 4", "f 4", "s"])
_add("triplet_swap", "TripletMarginLoss", [], ["f 4,3", "f 4,3", "f 4,3"], swap=True, p=1.0, margin=2.0)
_add("triplet_distance_swap", "TripletMarginWithDistanceLoss", [], ["f 4,3", "f 4,3", "f 4,3"], swap=True)
_add("multilabel_weight", "MultiLabelSoftMarginLoss", [], ["f 3,4", "p 3,4"], **_W)
_add("multimargin_vector", "MultiMarginLoss", [], ["f 4", "c4"])
_add("smooth_l1_zero", "SmoothL1Loss", [], ["f 3,4", "f 3,4"], beta=0.0)
_add("l1_weight", "F.l1_loss", [], ["f 3,4", "f 3,4"], weight={"tensor": "p 3,4"})
_add("mse_weight", "F.mse_loss", [], ["f 3,4", "f 3,4"], weight={"tensor": "p 3,4"}, reduction="none")
_add("huber_weight", "F.huber_loss", [], ["f 3,4", "f 3,4"], weight={"tensor": "p 3,4"})
_add("mse_broadcast", "F.mse_loss", [], ["f 3,4", "f 4"])
_add("mse_old_arguments", "F.mse_loss", [], ["f 3,4", "f 3,4"], size_average=False)

# ------------------------------------------------------------------------------------------------ recurrent

for _what, _states in (("RNN", 1), ("LSTM", 2), ("GRU", 1)):

    def _state(rows: int, batch: str, size: int, count: int = _states) -> Any:
        one = f"f {rows},{batch}{size}"
        return one if count == 1 else [one] * count

    _add(f"{_what}", _what, [3, 4], ["f 5,2,3"])
    _add(f"{_what}_state", _what, [3, 4], ["f 3,2,3", _state(1, "2,", 4)])
    _add(f"{_what}_deep", _what, [3, 2], ["f 2,4,3", _state(4, "2,", 2)], num_layers=2, bidirectional=True,
         batch_first=True)  # fmt: skip
    _add(f"{_what}_single", _what, [3, 2], ["f 4,3", _state(3, "", 2)], num_layers=3, bias=False)
    _add(f"{_what}Cell", f"{_what}Cell", [3, 4], ["f 2,3"])
    _add(f"{_what}Cell_state", f"{_what}Cell", [3, 4], ["f 3", "f 4" if _states == 1 else ["f 4"] * 2], bias=False)
_add("RNN_relu", "RNN", [3, 4], ["f 4,2,3"], nonlinearity="relu", num_layers=2)
_add("RNNCell_relu", "RNNCell", [3, 4], ["f 2,3"], nonlinearity="relu")
_add("LSTM_proj", "LSTM", [3, 4], ["f 4,2,3"], proj_size=2, num_layers=2, bidirectional=True)
_add("LSTM_proj_state", "LSTM", [3, 4], ["f 4,2,3", ["f 1,2,2", "f 1,2,4"]], proj_size=2)
_add("GRU_dropout_eval", "GRU", [3, 4], ["f 4,2,3"], EVAL, num_layers=2, dropout=0.5)

# ------------------------------------------------------------------------------------------------ attention

_add("sdpa", "F.scaled_dot_product_attention", [], ["f 2,3,4,5", "f 2,3,6,5", "f 2,3,6,2"])
_add("sdpa_flat", "F.scaled_dot_product_attention", [], ["f 4,5", "f 6,5", "f 6,2"], scale=0.3)
_add("sdpa_causal", "F.scaled_dot_product_attention", [], ["f 2,4,3", "f 2,6,3", "f 2,6,3"], is_causal=True)
_add("sdpa_causal_tall", "F.scaled_dot_product_attention", [], ["f 6,3", "f 4,3", "f 4,3"], is_causal=True)
_add("sdpa_mask", "F.scaled_dot_product_attention", [], ["f 2,3,4,5", "f 2,3,6,5", "f 2,3,6,2", "b 2,1,4,6"])
_add("sdpa_bias", "F.scaled_dot_product_attention", [], ["f 2,4,5", "f 2,6,5", "f 2,6,2", "f 4,6"])
_add("sdpa_groups", "F.scaled_dot_product_attention", [], ["f 2,4,3,5", "f 2,2,6,5", "f 2,2,6,2"], enable_gqa=True)

_QKV = ["f 3,2,4", "f 5,2,4", "f 5,2,4"]
_add("mha", "MultiheadAttention", [4, 2], _QKV)
_add("mha_heads", "MultiheadAttention", [4, 2], _QKV, {"call": {"average_attn_weights": False}}, bias=False)
_add("mha_plain", "MultiheadAttention", [4, 2], _QKV, {"call": {"need_weights": False}}, add_bias_kv=True,
     add_zero_attn=True)  # fmt: skip
_add("mha_sizes", "MultiheadAttention", [4, 2], ["f 2,3,4", "f 2,5,3", "f 2,5,6", "b 2,5"], batch_first=True, kdim=3,
     vdim=6, add_bias_kv=True)  # fmt: skip
_add("mha_single", "MultiheadAttention", [4, 2], ["f 3,4", "f 5,4", "f 5,4", "b 5"])
_add("mha_masks", "MultiheadAttention", [4, 2], [*_QKV, "b 2,5"],
     {"call": {"attn_mask": {"tensor": "f 3,5"}}}, add_zero_attn=True)  # fmt: skip
_add("mha_mask_heads", "MultiheadAttention", [4, 2], _QKV,
     {"call": {"attn_mask": {"tensor": "f 4,3,5"}, "need_weights": False}})  # fmt: skip
for _first in (False, True):
    _tag = "first" if _first else "last"
    _add(f"encoder_layer_{_tag}", "TransformerEncoderLayer", [4, 2], ["f 3,2,4"], dim_feedforward=6, dropout=0.0,
         norm_first=_first)  # fmt: skip
    _add(f"decoder_layer_{_tag}", "TransformerDecoderLayer", [4, 2], ["f 3,2,4", "f 5,2,4"], dim_feedforward=6,
         dropout=0.0, activation="gelu", norm_first=_first, bias=_first)  # fmt: skip
_add("encoder_layer_masks", "TransformerEncoderLayer", [4, 2], ["f 2,3,4", "f 3,3", "b 2,3"], EVAL, dim_feedforward=6,
     batch_first=True)  # fmt: skip
_add("transformer", "Transformer", [4, 2, 2, 2, 6, 0.0], ["f 5,2,4", "f 3,2,4"],
     {"call": {"tgt_mask": {"tensor": "f 3,3"}}})  # fmt: skip

# ----------------------------------------------------------------------------------------------- embeddings

_add("embedding", "Embedding", [7, 3], ["c7 2,5"])
_add("embedding_padding", "Embedding", [4, 3], ["c4 9"], padding_idx=-1)
_WRITES = {"refused": "overwritten with gradients disabled"}
_add("embedding_max_norm", "Embedding", [6, 3], ["c4 5"], _WRITES, max_norm=0.4)
_add("embedding_max_norm_1", "Embedding", [6, 3], ["c4 5"], _WRITES, max_norm=0.5, norm_type=1.0)
for _mode in ("sum", "mean", "max"):
    _add(f"bag_{_mode}", "EmbeddingBag", [5, 3], ["c5 3,4"], mode=_mode, padding_idx=2)
    _add(f"bag_offsets_{_mode}", "EmbeddingBag", [9, 3], ["c9 7", "o 0,2,2,6"], mode=_mode)
    _add(f"bag_last_{_mode}", "EmbeddingBag", [9, 3], ["c9 7", "o 0,3,7"], mode=_mode, include_last_offset=True,
         padding_idx=0)  # fmt: skip
_add("bag_weights", "EmbeddingBag", [5, 3], ["c5 6", "o 0,4", "f 6"], mode="sum")

# ------------------------------------------------------------------------------------------------- volumes

_add("conv3d", "Conv3d", [2, 3, 2], ["f 2,2,3,4,3"])
_add("conv3d_wide", "Conv3d", [4, 2, [3, 2, 1]], ["f 4,5,4,3"], stride=[2, 1, 1], padding=[1, 1, 0],
     dilation=[1, 2, 1], groups=2, bias=False)  # fmt: skip
_add("conv3d_same", "Conv3d", [1, 2, [2, 3, 4]], ["f 1,1,3,4,4"], padding="same")
for _mode in ("reflect", "replicate", "circular"):
    _add(f"conv3d_{_mode}", "Conv3d", [1, 2, 2], ["f 1,1,3,3,3"], padding=1, padding_mode=_mode)
_add("convtranspose3d", "ConvTranspose3d", [2, 3, 2], ["f 2,2,2,3,2"])
_add("convtranspose3d_wide", "ConvTranspose3d", [2, 4, [1, 2, 3]], ["f 2,3,2,2"], stride=[2, 1, 3], padding=[0, 1, 1],
     output_padding=[1, 0, 2], dilation=[1, 3, 1], groups=2)  # fmt: skip
_add("convtranspose3d_size", "ConvTranspose3d", [1, 2, 3], ["f 1,1,2,3,2"], {"call": {"output_size": [3, 6, 4]}},
     stride=2, padding=1)  # fmt: skip
_add("convtranspose2d_spread", "ConvTranspose2d", [2, 2, 2], ["f 1,2,3,2"], dilation=3, padding=[1, 0],
     output_padding=[2, 1])  # fmt: skip
_add("conv_tbc", "F.conv_tbc", [], ["f 4,2,3", "f 2,3,2", "f 2"])

for _ceil in (False, True):
    _add(f"maxpool3d_{_ceil}", "MaxPool3d", [[2, 3, 1]], ["f 2,2,4,5,3"], stride=[2, 2, 1], padding=[1, 1, 0],
         dilation=[1, 1, 2], return_indices=True, ceil_mode=_ceil)  # fmt: skip
    _add(f"avgpool3d_{_ceil}", "AvgPool3d", [[2, 3, 2]], ["f 2,2,4,5,3"], stride=[2, 2, 1], padding=[1, 1, 0],
         ceil_mode=_ceil, count_include_pad=_ceil)  # fmt: skip
    _add(f"lppool3d_{_ceil}", "LPPool3d", [3, 2], ["p 2,4,3,5"], ceil_mode=_ceil)
_add("adaptiveavgpool3d", "AdaptiveAvgPool3d", [[3, None, 2]], ["f 2,2,4,2,3"])
_add("adaptivemaxpool3d", "AdaptiveMaxPool3d", [[3, None, 2]], ["f 2,2,4,2,3"], return_indices=True)
for _dims, _shape in ((2, "2,2,7,6"), (3, "2,2,5,7,6")):
    _add(f"fractional{_dims}d", f"FractionalMaxPool{_dims}d", [2], [f"f {_shape}"], output_size=3,
         return_indices=True, _random_samples={"tensor": f"p 2,2,{_dims}"})  # fmt: skip

# -------------------------------------------------------------------------------------------- seldom used

_add("adaptive_softmax", "AdaptiveLogSoftmaxWithLoss", [8, 9, [2, 5]], ["f 6,8", "c9 6"], div_value=2.0)
_add("adaptive_softmax_bias", "AdaptiveLogSoftmaxWithLoss", [4, 5, [3]], ["f 4", "c5"], head_bias=True)
for _mode, _options in (("train", {"calls": 2}), ("eval", EVAL)):
    _add(f"syncbatchnorm_{_mode}", "SyncBatchNorm", [3], ["f 4,3,2"], _options)
_add("interpolate_area_3d", "F.interpolate", [], ["f 1,2,4,3,5"], size=[2, 2, 3], mode="area")
for _name, _rest in (("threshold_", [0.1, -3.0]), ("hardtanh_", [-0.4, 0.6])):
    _add(_name, f"F.{_name}", _rest, ["f 4,5!"])
for _name in ("relu_", "elu_", "selu_", "celu_", "leaky_relu_", "rrelu_"):
    _add(_name, f"F.{_name}", [], ["f 4,5!"])
