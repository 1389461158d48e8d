"""NumPy, DLPack, Python's protocols, devices, `to` and the `new_` methods."""

from __future__ import annotations

import gc
import sys
from typing import Any

import numpy as np
import pytest

import kiln
from kiln.utils import dlpack

# ------------------------------------------------------------------------------------------------ NumPy


def test_operators_with_arrays_give_tensors() -> None:
    t, a = kiln.tensor([1.0, 2.0]), np.array([10.0, 20.0])
    for made, expected in (
        (a * t, [10.0, 40.0]),
        (t * a, [10.0, 40.0]),
        (a - t, [9.0, 18.0]),
        (a / t, [10.0, 10.0]),
        (np.float64(3) * t, [3.0, 6.0]),
        (t @ a.astype(np.float32), 50.0),
    ):
        assert isinstance(made, kiln.Tensor), made
        assert made.tolist() == expected
    assert (a * t).dtype is kiln.float64
    assert (np.float64(3) * t).dtype is kiln.float32
    assert isinstance(a == t, kiln.Tensor) and (a == t).tolist() == [False, False]
    assert (a[::-1] + t).tolist() == [21.0, 12.0]  # any strides
    x = kiln.tensor([1.0, 2.0], requires_grad=True)
    (a * x).sum().backward()
    assert x.grad.tolist() == [10.0, 20.0]


def test_functions_of_numpy() -> None:
    t = kiln.tensor([1.0, 4.0])
    for made, expected in ((np.add(t, np.ones(2)), [2.0, 5.0]), (np.sqrt(t), [1.0, 2.0]), (np.add(t, t), [2.0, 8.0])):
        assert isinstance(made, kiln.Tensor) and made.tolist() == expected
    a = np.zeros(2)
    np.add(a, t, out=a)
    assert type(a) is np.ndarray and a.tolist() == [1.0, 4.0]
    assert np.asarray(t).tolist() == [1.0, 4.0] and np.asarray(t, np.int64).dtype == np.int64
    assert np.array(t, copy=True) is not t
    with pytest.raises(kiln.GradError, match="detach"):
        np.asarray(kiln.ones(2, requires_grad=True))
    assert kiln.ones(2, requires_grad=True).numpy(force=True).tolist() == [1.0, 1.0]


def test_arrays_in_compiled_functions() -> None:
    a = np.array([1.0, 2.0])
    f = kiln.compile(lambda t: t * a)
    t = kiln.ones(2)
    assert f(t).tolist() == f(t).tolist() == [1.0, 2.0]
    a[0] = 5
    assert f(t).tolist() == [5.0, 2.0]


def test_memory_is_shared_and_kept_alive() -> None:
    t = kiln.zeros(1000)
    a = t.numpy()
    t.add_(1)
    del t
    gc.collect()
    junk = [kiln.full((1000,), 7.0) for _ in range(50)]
    assert a.sum() == 1000 and len(junk) == 50
    b = np.ones(1000, np.float32)
    s = kiln.from_numpy(b)
    b[0] = 3
    del b
    gc.collect()
    assert s[0].item() == 3 and s.sum().item() == 1002
    a.flags.writeable = False
    r = kiln.from_numpy(a)
    with pytest.raises(kiln.GradError, match="read-only"):
        r.add_(1)


@pytest.mark.parametrize(
    ("array", "error", "match"),
    [
        (np.ones(3)[::-1], ValueError, "negative"),
        (np.ones(3, ">f4"), TypeError, "byte order"),
        (np.array(["a"]), TypeError, "no tensor dtype"),
        (np.array([1, None]), TypeError, "no tensor dtype"),
        (np.zeros(2, "datetime64[s]"), TypeError, "no tensor dtype"),
        ([1, 2], TypeError, "expected a NumPy array"),
        (np.frombuffer(bytes(9), np.uint8)[1:].view("f8"), ValueError, "unaligned"),
    ],
    ids=["reversed", "big-endian", "text", "objects", "dates", "list", "unaligned"],
)
def test_odd_arrays(array: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match) as caught:
        kiln.from_numpy(array)
    assert isinstance(caught.value, kiln.KilnError)
    assert "fix: " in str(caught.value)


def test_odd_strides_that_work() -> None:
    base = np.arange(24.0).reshape(4, 6)
    for a in (base[::2, ::3], base.T, base[1:1], np.broadcast_to(base[0], (3, 6)), base[:, 2:3], np.float64(3) + base):
        t = kiln.from_numpy(np.asarray(a))
        assert t.tolist() == a.tolist() and (t + 1).tolist() == (a + 1).tolist()
    assert kiln.from_numpy(np.array(2.5)).item() == 2.5


# ----------------------------------------------------------------------------------------------- DLPack


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.bool_])
def test_dlpack_both_ways(dtype: Any) -> None:
    a = np.arange(6).reshape(2, 3).astype(dtype)
    t = kiln.from_dlpack(a)
    assert t.tolist() == a.tolist() and t.data_ptr() == a.ctypes.data
    back = np.from_dlpack(t)
    assert back.ctypes.data == t.data_ptr() and back.dtype == dtype
    assert np.from_dlpack(t.t()).tolist() == a.T.tolist()
    again = dlpack.from_dlpack(dlpack.to_dlpack(t))
    assert again.data_ptr() == t.data_ptr() and t.__dlpack_device__() == (1, 0)
    assert kiln.from_dlpack(a, copy=True).data_ptr() != a.ctypes.data


def test_dlpack_keeps_memory_alive() -> None:
    t = kiln.full((1000,), 3.0)
    a = np.from_dlpack(t)
    capsule = kiln.full((1000,), 4.0).__dlpack__()
    del t
    gc.collect()
    junk = [kiln.full((1000,), 7.0) for _ in range(50)]
    assert a.sum() == 3000 and len(junk) == 50
    assert dlpack.from_dlpack(capsule).sum().item() == 4000
    u = kiln.from_dlpack(np.full(1000, 5.0))
    gc.collect()
    assert u.sum().item() == 5000


def test_bfloat16_by_dlpack() -> None:
    """Which NumPy does not hand on."""
    t = kiln.arange(6).to(kiln.bfloat16).reshape(2, 3)
    for shared in (kiln.from_dlpack(t.t()), dlpack.from_dlpack(dlpack.to_dlpack(t)).t()):
        assert shared.data_ptr() == t.data_ptr() and shared.dtype is kiln.bfloat16
        assert shared.tolist() == [[0, 3], [1, 4], [2, 5]]
    assert kiln.from_dlpack(t, copy=True).data_ptr() != t.data_ptr()
    copied = kiln.from_dlpack(t.__dlpack__(copy=True))
    assert copied.data_ptr() != t.data_ptr() and copied.tolist() == t.tolist()


def test_dlpack_errors() -> None:
    still = np.ones(3, np.float32)
    still.flags.writeable = False
    with pytest.raises(kiln.GradError, match="exported"):
        kiln.ones(2, requires_grad=True).__dlpack__()
    with pytest.raises(TypeError, match="does not export DLPack"):
        kiln.from_dlpack([1.0])
    with pytest.raises(kiln.DeviceError):
        kiln.ones(2).__dlpack__(stream=1)
    with pytest.raises(BufferError, match="readonly") as caught:
        kiln.from_dlpack(still).__dlpack__()
    assert isinstance(caught.value, kiln.ExportError)
    with pytest.raises(kiln.ExportError, match="holds no tensor any more"):
        capsule = kiln.ones(2).__dlpack__()
        kiln.from_dlpack(capsule)
        kiln.from_dlpack(capsule)

    class Elsewhere:
        def __dlpack__(self, **_: Any) -> Any: ...

        def __dlpack_device__(self) -> tuple[int, int]:
            return (8, 1)

    with pytest.raises(kiln.DeviceError, match="Metal"):
        kiln.from_dlpack(Elsewhere())


# ------------------------------------------------------------------------------------ Python's protocols


def test_python_protocols() -> None:
    t = kiln.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert [r.tolist() for r in t] == [[1.0, 2.0], [3.0, 4.0]] and len(t) == 2
    assert 3.0 in t and 5.0 not in t and t[0] in t
    assert bool(kiln.tensor(2)) and not kiln.tensor([[0.0]])
    assert [10, 20, 30][kiln.tensor(1)] == 20 and list(range(kiln.tensor(3))) == [0, 1, 2]
    assert complex(kiln.tensor(1.5)) == 1.5 + 0j and int(kiln.tensor(2.7)) == 2 and float(kiln.tensor(2)) == 2.0
    assert f"{kiln.tensor(1.23456):.2f}" == "1.23" and f"{kiln.tensor(7):3d}" == "  7"
    assert f"{kiln.ones(2)}" == "tensor([1., 1.])"
    assert {t: 1}[t] == 1
    for wrong, error in (
        (lambda: bool(t), RuntimeError),
        (lambda: bool(kiln.zeros(0)), RuntimeError),
        (lambda: len(kiln.tensor(1)), TypeError),
        (lambda: list(kiln.tensor(1)), TypeError),
        (lambda: kiln.tensor(1.0).__index__(), TypeError),
        (lambda: t.item(), RuntimeError),
        (lambda: f"{t:.2f}", (TypeError, ValueError)),
    ):
        with pytest.raises(error):
            wrong()


def test_is_tensor_and_numel() -> None:
    assert kiln.is_tensor(kiln.ones(1)) and not kiln.is_tensor(np.ones(1)) and not kiln.is_tensor(1)
    assert kiln.numel(kiln.ones(2, 3)) == 6
    assert kiln.ones(2).is_same_size(kiln.zeros(2)) and not kiln.ones(2).is_same_size(kiln.zeros(2, 1))


# ------------------------------------------------------------------------------------------------ devices


def test_devices() -> None:
    cpu, gpu = kiln.device("cpu"), kiln.device("cuda", 1)
    assert (cpu.type, cpu.index, gpu.type, gpu.index) == ("cpu", None, "cuda", 1)
    assert kiln.device("cuda:1") == gpu and kiln.device(gpu) is gpu and str(gpu) == "cuda:1"
    assert repr(cpu) == "device(type='cpu')" and repr(gpu) == "device(type='cuda', index=1)"
    assert kiln.device(1) is gpu and kiln.device("cuda") is kiln.device("cuda", 0)
    assert isinstance(cpu, kiln.device) and not isinstance("cpu", kiln.device)
    t = kiln.ones(2)
    assert t.device == cpu and t.to("cpu") is t and t.cpu() is t and t.is_cpu and not t.is_cuda
    assert t.get_device() == -1 and not kiln.cuda.is_available() and kiln.cuda.device_count() == 0
    for wrong, error in (("gpu", ValueError), ("cuda:x", ValueError), (2.0, TypeError), (None, TypeError)):
        with pytest.raises(error):
            kiln.device(wrong)


@pytest.mark.parametrize(
    "use",
    [
        lambda: kiln.ones(2).to("cuda"),
        lambda: kiln.ones(2).cuda(),
        lambda: kiln.zeros(2, device="cuda:0"),
        lambda: kiln.tensor([1.0], device=kiln.device("cuda")),
        lambda: kiln.ones(2).new_zeros(3, device="cuda"),
        lambda: kiln.arange(3, device="cuda"),
        lambda: kiln.eye(3, device="cuda"),
        lambda: kiln.full((2,), 1.0, device="cuda"),
        lambda: kiln.ones_like(kiln.ones(2), device="cuda"),
    ],
)
def test_a_missing_gpu_says_what_to_install(use: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first use says what to do; programs without a GPU pay nothing for it (`tests/gpu` has the other cases)."""
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(RuntimeError, match="pip install 'cupy") as caught:
        use()
    assert isinstance(caught.value, kiln.DeviceError)
    assert caught.value.loc is not None and caught.value.loc.file == __file__


def test_creation_takes_devices_dtypes_and_requires_grad() -> None:
    like = kiln.ones(2)
    for make in (
        lambda **k: kiln.zeros(2, **k), lambda **k: kiln.ones(2, **k), lambda **k: kiln.empty(2, **k),
        lambda **k: kiln.full((2,), 1, **k), lambda **k: kiln.tensor([1, 2], **k), lambda **k: kiln.arange(2, **k),
        lambda **k: kiln.eye(2, **k), lambda **k: kiln.zeros_like(like, **k), lambda **k: kiln.ones_like(like, **k),
        lambda **k: kiln.empty_like(like, **k), lambda **k: kiln.full_like(like, 1, **k),
        lambda **k: kiln.rand(2, **k), lambda **k: kiln.randn(2, **k), lambda **k: kiln.rand_like(like, **k),
        lambda **k: kiln.randn_like(like, **k), lambda **k: like.new_zeros(2, **k), lambda **k: like.new_ones(2, **k),
        lambda **k: like.new_empty(2, **k), lambda **k: like.new_full((2,), 1, **k),
        lambda **k: like.new_tensor([1, 2], **k),
    ):  # fmt: skip
        t = make(device="cpu", dtype=kiln.float64, requires_grad=True)
        assert t.dtype is kiln.float64 and t.requires_grad and t.is_leaf
        with pytest.raises(TypeError):
            make(dtype="float32")


# --------------------------------------------------------------------------------------------- to, new_


def test_to() -> None:
    t = kiln.tensor([1.5, 2.5])
    assert t.to(kiln.float32) is t and t.to(kiln.float32, copy=True) is not t
    assert t.to(kiln.int64).tolist() == [1, 2] and t.to(dtype=kiln.float64).dtype is kiln.float64
    assert t.to("cpu", kiln.float64).dtype is kiln.float64 and t.to(device="cpu") is t
    assert t.to(kiln.tensor(1)).dtype is kiln.int64 and t.to(other=kiln.tensor(1)).dtype is kiln.int64
    assert t.to("cpu", non_blocking=True) is t and t.to(kiln.float32, False, True) is not t
    for wrong in (lambda: t.to(), lambda: t.to(3.0), lambda: t.to(dtyp=kiln.float32)):
        with pytest.raises(TypeError):
            wrong()


def test_new_tensors() -> None:
    t = kiln.tensor([1.0, 2.0], dtype=kiln.float64)
    assert t.new_zeros(2, 3).ttype == kiln.zeros(2, 3, dtype=kiln.float64).ttype
    assert t.new_ones((2,)).tolist() == [1.0, 1.0] and t.new_empty(0).shape == (0,)
    assert t.new_full((2,), 3).tolist() == [3.0, 3.0] and t.new_full((2,), 3).dtype is kiln.float64
    assert t.new_tensor([1, 2]).dtype is kiln.float64 and t.new_zeros(1, dtype=kiln.int64).dtype is kiln.int64
    assert t.new_zeros(2, requires_grad=True).requires_grad
