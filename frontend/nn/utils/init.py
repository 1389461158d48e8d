"""Modules without initial values."""

from __future__ import annotations

from typing import Any, TypeVar

from kiln.nn.module import Module

__all__ = ["skip_init"]

AnyModule = TypeVar("AnyModule", bound=Module)


def skip_init(module_cls: type[AnyModule], *args: Any, **kwargs: Any) -> AnyModule:
    """module_cls(*args, **kwargs). (Initial values are cheap; they are not left out.)"""
    return module_cls(*args, **kwargs)
