"""Pinned memory: what lies in it, and copies that nobody waits for."""

from __future__ import annotations

import sys
from collections import namedtuple
from typing import Any

import numpy as np
import pytest

import kiln
from kiln.data import DataLoader, TensorDataset
from tests.gpu.conftest import Gpu

Pair = namedtuple("Pair", "x y")


def test_what_is_pinned(gpu: Gpu) -> None:
    x = kiln.arange(6.0).reshape(2, 3).t()
    pinned = x.pin_memory()
    assert pinned.is_pinned() and not x.is_pinned() and pinned.pin_memory() is pinned
    assert pinned.tolist() == x.tolist() and pinned.is_contiguous() and pinned.device.type == "cpu"
    assert pinned[1:].is_pinned() and not (pinned + 1).is_pinned() and not pinned.clone().is_pinned()
    pinned[0] = 9.0
    assert (pinned.numpy()[0] == 9).all() and (kiln.ones(2, 3) @ pinned).shape == (2, 2)
    assert kiln.zeros(0, 3).pin_memory().shape == (0, 3)
    w = kiln.ones(2, requires_grad=True)
    (w.pin_memory() * 3).sum().backward()
    assert w.grad.tolist() == [3.0, 3.0]


def test_functions_that_make_tensors_pin_them(gpu: Gpu) -> None:
    made: Any
    for made in (
        kiln.empty(2, pin_memory=True), kiln.zeros(2, pin_memory=True), kiln.eye(2, pin_memory=True)[0].detach(),
        kiln.ones(2, requires_grad=True, pin_memory=True),
        kiln.full((2,), 3.0, pin_memory=True), kiln.rand(2, pin_memory=True), kiln.arange(2, pin_memory=True),
        kiln.tensor([1, 2], pin_memory=True), kiln.zeros_like(kiln.ones(2), pin_memory=True),
        kiln.tensor([1.0, 2.0], pin_memory=True, requires_grad=True),
    ):  # fmt: skip
        assert made.is_pinned() and made.is_leaf and made.shape == (2,)
    assert not kiln.zeros(2, pin_memory=False).is_pinned()
    with pytest.raises(kiln.DeviceError, match="only memory of the CPU"):
        kiln.zeros(2, device="cuda", pin_memory=True)


def test_there_is_none_without_a_gpu(fake: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert not kiln.ones(2).is_pinned()
    for make in (
        kiln.ones(2).pin_memory,
        lambda: kiln.ones(2, pin_memory=True),
        lambda: kiln.tensor(1, pin_memory=True),
    ):
        with pytest.raises(kiln.DeviceError, match="GPUs need CuPy"):
            make()


def test_the_system_may_pin_no_more(fake: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = sys.modules["cupy"].cuda

    def refuse(size: int) -> None:
        raise cuda.runtime.CUDARuntimeError(2)

    monkeypatch.setattr(cuda, "alloc_pinned_memory", refuse)
    with pytest.raises(kiln.OutOfMemoryError, match="the system pins no 8 bytes more") as caught:
        kiln.ones(2).pin_memory()
    assert "ulimit" in caught.value.fix


def test_copies_go_on_while_the_program_does(fake: Gpu) -> None:
    n = 1 << 16  # floats: more than goes through memory of kiln's own
    source, back = kiln.arange(float(n)).pin_memory(), kiln.zeros(n, pin_memory=True)
    x = kiln.zeros(n, device="cuda")
    fake.counts.clear()
    x.copy_(source, non_blocking=True)
    y = source.to("cuda", non_blocking=True) + x
    version = back._version
    back.copy_(y, non_blocking=True)
    assert fake.counts["synchronize"] == 0 and back._version == version + 1
    del y
    kiln.cuda.synchronize()
    assert np.array_equal(back.numpy(), source.numpy() * 2)
    source.cuda()
    assert fake.counts["synchronize"] == 2, "a wait that nobody asked to leave out"


def test_memory_is_kept_until_copies_are_done(fake: Gpu) -> None:
    made = [kiln.full((64,), float(k)).pin_memory().to("cuda", non_blocking=True) for k in range(5)]
    assert [m[0].item() for m in made] == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_batches(gpu: Gpu) -> None:
    data = TensorDataset(kiln.arange(4.0), kiln.arange(4))
    for x, y in DataLoader(data, batch_size=2, pin_memory=True):
        assert x.is_pinned() and y.is_pinned()
        assert x.to("cuda", non_blocking=True).cpu().tolist() == y.tolist()
    items = [{"a": kiln.ones(1), "b": Pair("text", 3)}] * 2
    (batch,) = DataLoader(items, batch_size=None, sampler=[0], pin_memory=True)
    assert batch["a"].is_pinned() and batch["b"] == Pair("text", 3)
    assert not next(iter(DataLoader(data)))[0].is_pinned()


def test_a_graph_reads_pinned_memory_at_each_replay(gpu: Gpu) -> None:
    source, back = kiln.ones(8).pin_memory(), kiln.zeros(8, pin_memory=True)
    x = kiln.zeros(8, device="cuda")
    (x + 1).sum()
    g = kiln.cuda.CUDAGraph()
    with kiln.cuda.graph(g):
        x.copy_(source, non_blocking=True)
        back.copy_(x + 1, non_blocking=True)
    for k in range(3):
        source.fill_(k)
        g.replay()
        kiln.cuda.synchronize()
        assert back.tolist() == [k + 1.0] * 8


def test_compiled_functions_do_not_pin(gpu: Gpu) -> None:
    f = kiln.compile(lambda x: x.pin_memory() + 1, fullgraph=True)
    with pytest.raises(kiln.errors.CaptureError, match="pinned"):
        f(kiln.ones(2))
    g, pinned = kiln.compile(lambda x: x * 2), kiln.ones(2).pin_memory()
    assert [g(pinned).tolist() for _ in range(2)] == [[2.0, 2.0]] * 2
