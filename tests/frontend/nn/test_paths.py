"""The paths that programs import layers from, and what else is there besides layers."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import kiln
from kiln import nn
from kiln.nn import common_types, modules, parallel
from kiln.nn.parameter import UninitializedParameter, is_lazy

HOMES = {
    "activation": "ReLU MultiheadAttention", "adaptive": "AdaptiveLogSoftmaxWithLoss",
    "batchnorm": "BatchNorm1d SyncBatchNorm _BatchNorm _NormBase", "channelshuffle": "ChannelShuffle",
    "container": "Sequential ModuleList ModuleDict ParameterList", "conv": "Conv3d _ConvNd _ConvTransposeNd",
    "distance": "PairwiseDistance CosineSimilarity", "dropout": "Dropout _DropoutNd", "flatten": "Flatten Unflatten",
    "fold": "Fold Unfold", "instancenorm": "InstanceNorm2d _InstanceNorm", "lazy": "LazyModuleMixin",
    "linear": "Linear Identity Bilinear NonDynamicallyQuantizableLinear",
    "loss": "CrossEntropyLoss _Loss", "module": "Module",
    "normalization": "LayerNorm GroupNorm CrossMapLRN2d LocalResponseNorm RMSNorm", "padding": "ZeroPad2d",
    "pixelshuffle": "PixelShuffle", "pooling": "MaxPool3d _MaxPoolNd", "rnn": "LSTM RNNBase", "sparse": "Embedding",
    "transformer": "TransformerEncoderLayer", "upsampling": "Upsample",
}  # fmt: skip


@pytest.mark.parametrize("path", HOMES)
def test_module_paths(path: str) -> None:
    home = importlib.import_module(f"kiln.nn.modules.{path}")
    assert home is getattr(modules, path)
    for name in HOMES[path].split():
        made = getattr(home, name)
        assert name.startswith("_") or made is getattr(nn, name, made)


def test_paths_in_a_fresh_process() -> None:
    text = "from torch.nn.modules.conv import _ConvNd; from torch.nn.modules.utils import _pair; "
    text += (
        "from torch.nn.modules import Conv2d; import torch.nn.modules.batchnorm; print(_pair(3), Conv2d is not None)"
    )
    done = subprocess.run([sys.executable, "-c", text.replace("torch", "kiln")], capture_output=True, text=True)
    assert done.stdout == "(3, 3) True\n", done.stderr


def test_all_layers_are_there() -> None:
    assert modules.Linear is nn.Linear and {"Conv3d", "conv", "utils"} <= set(dir(modules))
    with pytest.raises(AttributeError):
        modules.Nothing  # noqa: B018
    with pytest.raises(AttributeError):
        modules._private  # noqa: B018


def test_tuples() -> None:
    from kiln.nn.tuples import (
        _list_with_default,
        _ntuple,
        _quadruple,
        _reverse_repeat_tuple,
        _single,
        _triple,
        consume_prefix_in_state_dict_if_present,
    )

    assert (_single(2), _triple([1, 2, 3]), _quadruple(0), _ntuple(2)("ab")) == ((2,), (1, 2, 3), (0,) * 4, ("a", "b"))
    assert _reverse_repeat_tuple((1, 2), 2) == (2, 2, 1, 1)
    assert _list_with_default([None, 4], [7, 8, 9]) == [8, 4] and _list_with_default(3, [1]) == 3
    with pytest.raises(ValueError, match="at least 3"):
        _list_with_default([1, 2], [1, 2])
    net = nn.DataParallel(nn.Linear(2, 2))
    state = net.state_dict()
    assert list(state) == ["module.weight", "module.bias"]
    consume_prefix_in_state_dict_if_present(state, "module.")
    net.module.load_state_dict(state)


def test_one_device() -> None:
    layer, x = nn.Linear(2, 3), kiln.ones(4, 2)
    assert nn.DataParallel(layer)(x).equal(layer(x)) and parallel.data_parallel(layer, x).equal(layer(x))
    assert parallel.data_parallel(nn.Bilinear(2, 2, 1), (x, x)).shape == (4, 1)
    for call in (
        lambda: nn.DataParallel(layer, device_ids=[0, 1]),
        lambda: parallel.data_parallel(layer, x, [0]),
        lambda: parallel.DistributedDataParallel(layer),
    ):
        with pytest.raises(kiln.NotYetError):
            call()


def test_memory_formats_change_nothing() -> None:
    net = nn.Conv2d(1, 1, 1)
    assert nn.utils.convert_conv2d_weight_memory_format(net, kiln.channels_last) is net
    assert nn.utils.convert_conv3d_weight_memory_format(net, kiln.channels_last_3d) is net


def test_lazy_parameters() -> None:
    assert (
        is_lazy(UninitializedParameter()) and is_lazy(nn.UninitializedBuffer()) and not is_lazy(nn.Linear(1, 1).weight)
    )
    assert common_types._size_2_t == int | tuple[int, int]
