"""Automatic differentiation: `grad`, `backward`, gradient modes, hooks, `Function`, anomaly detection, `gradcheck`.

| module | holds |
|---|---|
| `tape.py` | nodes, views, in-place writes |
| `backward.py` | the walk back |
| `grad_mode.py` | `no_grad` and its like |
| `hooks.py` | functions that see gradients flow |
| `function.py` | ops with a derivative of the user's |
| `anomaly.py` | which op makes NaNs |
| `forward_ad.py` | dual tensors by hand |
| `functional.py`, `gradcheck.py` | Jacobians and Hessians; derivatives against finite differences |
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from kiln.autograd.anomaly import detect_anomaly as detect_anomaly
from kiln.autograd.anomaly import is_anomaly_check_nan_enabled as is_anomaly_check_nan_enabled
from kiln.autograd.anomaly import is_anomaly_enabled as is_anomaly_enabled
from kiln.autograd.anomaly import set_detect_anomaly as set_detect_anomaly
from kiln.autograd.backward import backward as backward
from kiln.autograd.backward import grad as grad
from kiln.autograd.function import Function as Function
from kiln.autograd.grad_mode import enable_grad as enable_grad
from kiln.autograd.grad_mode import inference_mode as inference_mode
from kiln.autograd.grad_mode import is_grad_enabled as is_grad_enabled
from kiln.autograd.grad_mode import is_inference_mode_enabled as is_inference_mode_enabled
from kiln.autograd.grad_mode import no_grad as no_grad
from kiln.autograd.grad_mode import set_grad_enabled as set_grad_enabled
from kiln.autograd.tape import Edge as Edge
from kiln.autograd.tape import Node as Node
from kiln.autograd.tape import attach as attach
from kiln.autograd.tape import attach_one as attach_one
from kiln.autograd.tape import check_versions as check_versions
from kiln.autograd.tape import check_writable as check_writable
from kiln.autograd.tape import edge_of as edge_of
from kiln.autograd.tape import overwrite as overwrite
from kiln.autograd.tape import record as record
from kiln.autograd.tape import refresh as refresh
from kiln.autograd.tape import resolved as resolved
from kiln.autograd.tape import track_view as track_view
from kiln.autograd.tape import write_in_place as write_in_place

if TYPE_CHECKING:
    from kiln.autograd import forward_ad as forward_ad
    from kiln.autograd import functional as functional
    from kiln.autograd.gradcheck import gradcheck as gradcheck
    from kiln.autograd.gradcheck import gradgradcheck as gradgradcheck


def __getattr__(name: str) -> Any:
    """What stands above tensors is loaded on first use."""
    if name in ("forward_ad", "functional"):
        return importlib.import_module(f"kiln.autograd.{name}")
    if name in ("gradcheck", "gradgradcheck"):
        # The function hides the module of its name, as `kiln.tensor` does.
        module = importlib.import_module("kiln.autograd.gradcheck")
        globals().update(gradcheck=module.gradcheck, gradgradcheck=module.gradgradcheck)
        return globals()[name]
    raise AttributeError(f"module 'kiln.autograd' has no attribute {name!r}")
