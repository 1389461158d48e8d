"""The layers under the module paths that programs import them from. Each path is a file of `kiln.nn`, under PyTorch's
name for it."""

from __future__ import annotations

import importlib
import sys
from typing import Any, Final

from kiln import nn

_FILES: Final = {
    "activation": "activations",
    "adaptive": "adaptive",
    "batchnorm": "normalization",
    "channelshuffle": "pooling",
    "container": "containers",
    "conv": "conv",
    "distance": "linear",
    "dropout": "dropout",
    "flatten": "linear",
    "fold": "conv",
    "instancenorm": "normalization",
    "lazy": "lazy",
    "linear": "linear",
    "loss": "losses",
    "module": "module",
    "normalization": "normalization",
    "padding": "pooling",
    "pixelshuffle": "pooling",
    "pooling": "pooling",
    "rnn": "recurrent",
    "sparse": "sparse",
    "transformer": "attention",
    "upsampling": "pooling",
    "utils": "tuples",
}
"""PyTorch's file -> the file here."""

for _path, _file in _FILES.items():
    globals()[_path] = sys.modules[f"{__name__}.{_path}"] = importlib.import_module(f"kiln.nn.{_file}")


def __getattr__(name: str) -> Any:
    """The layers themselves."""
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(nn, name)


def __dir__() -> list[str]:
    return sorted({*_FILES, *(n for n in dir(nn) if not n.startswith("_"))})
