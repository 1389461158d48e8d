"""Modules on several devices: there is one here, so a module runs as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kiln.errors import NotYetError
from kiln.nn.module import Module

__all__ = ["DataParallel", "DistributedDataParallel", "data_parallel"]


class DataParallel(Module):
    """Calls `module`, as PyTorch's does where there is only the CPU; its state has the prefix "module.".

    NotYetError for `device_ids`.
    """

    def __init__(
        self,
        module: Module,
        device_ids: Sequence[Any] | None = None,
        output_device: Any = None,
        dim: int = 0,
    ) -> None:
        _one_device("DataParallel", device_ids, output_device)
        self.module, self.dim = module, dim
        self.device_ids: list[Any] = []

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        return self.module(*inputs, **kwargs)


class DistributedDataParallel(Module):
    """There are no process groups: NotYetError."""

    def __init__(self, module: Module, *_: Any, **__: Any) -> None:
        raise NotYetError("there are no process groups", op="DistributedDataParallel", fix="use the module itself")


def data_parallel(
    module: Module,
    inputs: Any,
    device_ids: Sequence[Any] | None = None,
    output_device: Any = None,
    dim: int = 0,
    module_kwargs: dict[str, Any] | None = None,
) -> Any:
    """module(*inputs, **module_kwargs); `inputs` may also be the only one. NotYetError for `device_ids`."""
    del dim
    _one_device("data_parallel", device_ids, output_device)
    return module(*inputs if isinstance(inputs, tuple) else (inputs,), **(module_kwargs or {}))


def _one_device(op: str, device_ids: Sequence[Any] | None, output_device: Any) -> None:
    if device_ids or output_device not in (None, -1, "cpu"):
        raise NotYetError("modules run on the CPU only", op=op, fix="leave device_ids and output_device out")
