"""The fixture `gpu`: a CuPy for the test, a fake one unless pytest runs with `-m gpu` where there is a GPU.

Environment variables: KILN_REQUIRE_GPU_TESTS=1: no C++ compiler is an error; 0: tests with a fake GPU are skipped.
KILN_SHIM_ORDER (natural, reverse, shuffled) and KILN_SHIM_SEED: how threads run. KILN_FAKE_DEFERRED=0: the fake works
at once, as no GPU does. KILN_FAKE_GPUS, KILN_FAKE_GPU_BYTES: how many, and their memory. KILN_SHIM_CACHE: a folder that
keeps what was compiled. KILN_FAKE_AS_REAL=1: `-m gpu` rehearses a run on cards, with the fake in their place
(KILN_FAKE_GPUS=1: on one).
"""

from __future__ import annotations

import importlib
import os
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import pytest

import kiln
from kiln import there
from tests.gpu import fake_cublaslt, fake_cupy, fake_device, shim


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`-m gpu` takes the tests that use the fixture."""
    for item in items:
        if "gpu" in getattr(item, "fixturenames", ()):
            item.add_marker("gpu")


@dataclass
class Gpu:
    """What a test may ask of its GPUs."""

    real: bool

    def deferred(self, on: bool = True) -> AbstractContextManager[None]:
        """Work waits until somebody waits for it; a real GPU does as it likes."""
        return nullcontext() if self.real else fake_device.deferred(on)

    @property
    def counts(self) -> Counter[str]:
        """How often there was each of "launch", "memcpy", "memset", "malloc", "synchronize", "compile", "load" (which
        a real GPU does not count)."""
        return fake_device.state.counts

    def errors(self) -> list[str]:
        """What went wrong on the devices since it was last asked; they work again. What no test asks for fails it."""
        return [] if self.real else fake_device.clear()


def _real_gpu() -> bool:
    if os.environ.get("KILN_FAKE_AS_REAL") == "1":
        fake_cupy.install()
    try:
        return bool(importlib.import_module("cupy").cuda.runtime.getDeviceCount())
    except (ImportError, RuntimeError):
        return False


@pytest.fixture
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpu]:
    if request.config.option.markexpr == "gpu" and _real_gpu():
        before = kiln.backends.cuda.preferred_blas_library()
        kiln.backends.cuda.preferred_blas_library("kiln")  # whose bits are the CPU's
        yield Gpu(real=True)
        kiln.backends.cuda.preferred_blas_library(before)
        return
    if (why := shim.missing()) is not None:
        pytest.skip(why)
    monkeypatch.setenv("KILN_CUBLASLT", "0")
    for name in [n for n in sys.modules if n == "cupy" or n.startswith("cupy.")]:
        monkeypatch.delitem(sys.modules, name)
    for name, module in fake_cupy.MODULES.items():
        monkeypatch.setitem(sys.modules, name, module)
    made = Gpu(real=False)
    made.errors()
    made.counts.clear()
    # Every order of threads has its tests, and a failure comes back.
    if "KILN_SHIM_ORDER" not in os.environ:
        monkeypatch.setenv("KILN_SHIM_ORDER", list(shim.ORDERS)[zlib.crc32(request.node.nodeid.encode()) % 3])
    with made.deferred(os.environ.get("KILN_FAKE_DEFERRED") != "0"):
        yield made
    _forget()
    said = made.errors()
    assert not said, said


def _forget() -> None:
    """Tests that follow have no GPU: what counts as used takes part in every capture."""
    there._checked.clear()
    there._multiplies.clear()
    if (random := sys.modules.get("kiln.random")) is not None:
        for device in [d for d in random._defaults if d.kind == "cuda"]:
            del random._defaults[device]


@pytest.fixture
def blas(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpu]:
    """`gpu`, where cublasLt computes products: a fake one on fake GPUs."""
    before = kiln.backends.cuda.preferred_blas_library()
    kiln.backends.cuda.preferred_blas_library("default")
    if not gpu.real:
        fake_cublaslt.library()
        fake_cublaslt.seen.__init__()  # type: ignore[misc]
        monkeypatch.setenv("KILN_CUBLASLT", fake_cublaslt.path())
    there._multiplies.clear()
    yield gpu
    kiln.backends.cuda.preferred_blas_library(before)


@pytest.fixture
def fake(gpu: Gpu) -> Gpu:
    """`gpu`, for what only a fake one can be made to do: fail, run out of memory, count."""
    if gpu.real:
        pytest.skip("with the fake CuPy only")
    return gpu
