"""Memory formats of weights: tensors are row-major here, whatever format is asked for."""

from __future__ import annotations

from typing import TypeVar

from kiln.constants import MemoryFormat
from kiln.nn.module import Module

__all__ = ["convert_conv2d_weight_memory_format", "convert_conv3d_weight_memory_format"]

AnyModule = TypeVar("AnyModule", bound=Module)


def convert_conv2d_weight_memory_format(module: AnyModule, memory_format: MemoryFormat) -> AnyModule:
    """The module as it is: the format changes no result."""
    del memory_format
    return module


def convert_conv3d_weight_memory_format(module: AnyModule, memory_format: MemoryFormat) -> AnyModule:
    """The module as it is: the format changes no result."""
    del memory_format
    return module
