"""Layers and functions against stored results of PyTorch, and compiled against eager, bit for bit.

`tests/tools/make_nn_golden.py` made the results.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kiln
from kiln import nn
from tests.frontend.nn.golden_cases import CASES

pytestmark = pytest.mark.filterwarnings("ignore:Using a target size")  # as PyTorch warns
GOLDEN = json.loads((Path(__file__).parents[2] / "golden/nn.json").read_text())

CLOSE = {"rtol": 1e-8, "atol": 1e-10}
"""float64 against float64: the orders of sums differ, and 13 digits are stored."""

ROUGH = {"celu_alpha", "hardsigmoid"}
"""PyTorch rounds a constant of these to float32: 3e-8 off."""


def loaded(x: Any) -> Any:
    if isinstance(x, dict):
        return kiln.tensor(np.array(x["data"], x["dtype"]).reshape(x["shape"]))
    return [loaded(v) for v in x] if isinstance(x, list) else x


def tensors(x: Any) -> list[Any]:
    """The tensors in a nested result, in order; None stays."""
    if isinstance(x, (tuple, list)):
        return [t for v in x for t in tensors(v)]
    return [x] if x is None or isinstance(x, kiln.Tensor) else []


def compare(got: Any, wanted: Any, what: str, rtol: float) -> None:
    if wanted is None:
        assert got is None or not got.detach().any().item(), what
        return
    assert got is not None, what
    assert list(got.shape) == wanted["shape"] and str(got.dtype) == wanted["dtype"], what
    data = np.array(wanted["data"], wanted["dtype"]).reshape(wanted["shape"])
    np.testing.assert_allclose(got.detach().numpy(), data, err_msg=what, rtol=rtol, atol=CLOSE["atol"])


def build(name: str, dtype: Any = None) -> tuple[Callable[..., Any], Any, list[Any]]:
    """(function to call, its module or None, inputs) of a case."""
    what, args, kwargs, texts, options = CASES[name]
    stored = GOLDEN[name]
    extra = iter(loaded(stored["arguments"]))
    convert = (lambda t: t.to(dtype)) if dtype is not None else (lambda t: t)

    def argument(x: Any) -> Any:
        if not isinstance(x, dict):
            return x
        t = next(extra)
        return convert(t) if t.is_floating_point() else t

    args = [argument(x) for x in args]
    kwargs = {k: argument(x) for k, x in kwargs.items()}
    call = {k: argument(x) for k, x in options.get("call", {}).items()}

    def given(x: Any, text: Any) -> Any:
        if isinstance(text, list):
            return tuple(given(a, b) for a, b in zip(x, text, strict=True))
        x = convert(x) if x.is_floating_point() else x
        return x.requires_grad_() if x.is_floating_point() and not text.endswith("!") else x

    inputs = [given(x, text) for x, text in zip(loaded(stored["inputs"]), texts, strict=True)]
    if what.startswith("F."):
        function = getattr(nn.functional, what[2:])
        return (lambda *xs: function(*xs, *args, **kwargs)), None, inputs
    module = getattr(nn, what)(*args, **kwargs)
    module.double()
    module.load_state_dict({k: loaded(v) for k, v in stored["state"].items()})
    module.to(dtype or kiln.float64)
    module.train(not options.get("eval", False))
    return (lambda *xs: module(*xs, **call)), module, inputs


def step(function: Callable[..., Any], inputs: list[Any]) -> Any:
    """Call, and take the gradients of sum(result * cos(0, 1, 2, ...))."""
    out = function(*inputs)
    total: Any = None
    for t in tensors(out):
        if t is not None and t.requires_grad:
            weights = kiln.tensor(np.cos(np.arange(t.numel(), dtype=np.float64))).to(t.dtype)
            part = (t.reshape(-1) * weights).sum()
            total = part if total is None else total + part
    if total is not None:
        total.backward()
    return out


@pytest.mark.parametrize("name", sorted(CASES))
def test_like_torch(name: str) -> None:
    stored = GOLDEN[name]
    function, module, inputs = build(name)
    if module is not None:
        assert list(module.state_dict()) == list(stored["state"])
        assert [n for n, _ in module.named_parameters()] == list(stored["parameter_grads"])
    for _ in range(CASES[name][4].get("calls", 1) - 1):
        function(*inputs)
    rtol = 1e-7 if name in ROUGH else CLOSE["rtol"]
    out = step(function, inputs)
    outputs = stored["outputs"]
    flat = _stored_tensors(outputs)
    for k, (got, wanted) in enumerate(zip(tensors(out), flat, strict=True)):
        compare(got, wanted, f"result {k}", rtol)
    for k, (x, wanted) in enumerate(zip(tensors(inputs), stored["grads"], strict=True)):
        compare(x.grad, wanted, f"gradient of input {k}", rtol)
    if module is not None:
        for key, p in module.named_parameters():
            compare(p.grad, stored["parameter_grads"][key], f"gradient of {key}", rtol)
        for key, b in module.named_buffers():
            compare(b, stored["after"][key], key, rtol)


def _stored_tensors(x: Any) -> list[Any]:
    return [t for v in x for t in _stored_tensors(v)] if isinstance(x, list) else [x]


def _bits(x: Any) -> Any:
    return [None if t is None else (str(t.dtype), t.shape, t.detach().numpy().tobytes()) for t in tensors(x)]


_FIRST = {name.partition("_")[0]: name for name in sorted(CASES, reverse=True)}
"""One case of each layer: the others take long to compile, and differ little in what is compiled."""


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name", [n if n in _FIRST.values() else pytest.param(n, marks=pytest.mark.slow) for n in sorted(CASES)]
)
def test_compiled_is_eager(name: str, dtype: str) -> None:
    """Forward compiled with the backward outside, and both inside: results, gradients and buffers, three calls long
    (the second and third run compiled)."""
    seen = []
    for mode in ("eager", "forward", "whole"):
        kiln.manual_seed(3)
        function, module, inputs = build(name, getattr(kiln, dtype))

        def whole(*xs: Any, function: Any = function) -> Any:
            return step(function, list(xs))

        call = whole
        if mode == "whole":
            call = kiln.compile(whole, fullgraph=True)
        elif mode == "forward":
            compiled = kiln.compile(function, fullgraph=True)
            call = lambda *xs, compiled=compiled: step(compiled, list(xs))  # noqa: E731
        held: list[Any] = []
        refused = CASES[name][4].get("refused")
        if refused is not None and mode != "eager":
            with pytest.raises(kiln.CaptureError, match=refused):
                call(*inputs)
            continue
        for _ in range(3):
            held.append(_bits(call(*inputs)))
        held.append([_bits(x.grad) for x in tensors(inputs)])
        if module is not None:
            held.append([_bits(p.grad) for p in module.parameters()] + [_bits(b) for b in module.buffers()])
        seen.append(held)
    assert all(held == seen[0] for held in seen[1:])
