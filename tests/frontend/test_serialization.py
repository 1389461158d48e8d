"""`kiln.save` and `kiln.load`: exact round trips, atomic writing, damaged and hostile files."""

from __future__ import annotations

import collections
import errno
import io
import json
import math
import os
import pickle
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import kiln
from kiln import nn, serialization, tensorfile


def file_of(path: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@pytest.mark.parametrize("dtype", ["bool", "int64", "float32", "float64"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3, 4)], ids=str)
def test_tensors_come_back_bit_for_bit(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    array = (
        rng.integers(0, 2, shape).astype(bool) if dtype == "bool" else (rng.standard_normal(shape) * 9).astype(dtype)
    )
    if array.size and dtype.startswith("float"):
        array.reshape(-1)[0] = np.nan
    kiln.save(kiln.tensor(array), tmp_path / "x")
    loaded = kiln.load(tmp_path / "x")
    assert loaded.shape == shape and loaded.dtype.name == dtype and not loaded.requires_grad
    assert loaded.numpy().tobytes() == array.tobytes()
    if array.size:
        loaded.fill_(1)  # loaded tensors own their memory


def test_views_and_special_values(tmp_path: Path) -> None:
    x = kiln.tensor([[0.0, -0.0, math.inf], [-math.inf, math.nan, 1e-45]])
    kiln.save({"t": x.T, "s": x[:, ::2]}, str(tmp_path / "x"))
    loaded = kiln.load(str(tmp_path / "x"))
    assert loaded["t"].numpy().tobytes() == np.ascontiguousarray(x.numpy().T).tobytes()
    assert loaded["s"].numpy().tobytes() == np.ascontiguousarray(x.numpy()[:, ::2]).tobytes()


def test_structure(tmp_path: Path) -> None:
    t = kiln.ones(2)
    tree = {
        "a": [1, -(2**70), True, None, "text \u2713", (), (t, [t]), {}],
        3: {"deep": ({"x": t},), "3": 0.1},
        "numbers": [math.inf, -math.inf, -0.0, 5e-324],
    }
    kiln.save(tree, tmp_path / "x")
    loaded = kiln.load(tmp_path / "x")
    assert list(loaded) == ["a", 3, "numbers"]
    assert loaded["a"][:6] == tree["a"][:6] and type(loaded["a"][2]) is bool  # type: ignore[index]
    assert isinstance(loaded["a"][6], tuple) and loaded["a"][6][1][0].tolist() == [1.0, 1.0]
    assert loaded[3]["deep"][0]["x"].tolist() == [1.0, 1.0] and loaded[3]["3"] == 0.1
    assert list(map(repr, loaded["numbers"])) == ["inf", "-inf", "-0.0", "5e-324"]
    kiln.save(math.nan, tmp_path / "x")
    assert math.isnan(kiln.load(tmp_path / "x"))


def test_names_that_collide(tmp_path: Path) -> None:
    tree = {"a.b": kiln.zeros(1), "a": {"b": kiln.ones(1)}, "__metadata__": kiln.ones(1) * 2}
    kiln.save(tree, tmp_path / "x")
    loaded = kiln.load(tmp_path / "x")
    assert [loaded["a.b"].item(), loaded["a"]["b"].item(), loaded["__metadata__"].item()] == [0.0, 1.0, 2.0]


def test_modules_and_optimisers(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    optimizer = kiln.optim.Adam(model.parameters(), lr=0.5)
    model(kiln.ones(2, 3)).sum().backward()
    optimizer.step()
    kiln.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "x")
    loaded = kiln.load(tmp_path / "x")
    other = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    second = kiln.optim.Adam(other.parameters())
    other.load_state_dict(loaded["model"])
    second.load_state_dict(loaded["optimizer"])
    assert (other[0].weight == model[0].weight).all().item()
    assert second.param_groups[0]["lr"] == 0.5 and second.param_groups[0]["betas"] == (0.9, 0.999)
    assert second.state[other[0].weight]["step"].item() == 1


def test_other_readers_and_writers(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    kiln.save({"w": kiln.ones(2, 3), "b": kiln.tensor(True), "n": kiln.tensor([1, 2])}, tmp_path / "x")
    read = load_file(tmp_path / "x")
    assert read["w"].tolist() == [[1.0] * 3] * 2 and read["b"].item() is True and read["n"].tolist() == [1, 2]
    save_file({"w": np.arange(3.0)}, tmp_path / "y", {"format": "np"})
    assert kiln.load(tmp_path / "y")["w"].tolist() == [0.0, 1.0, 2.0]
    save_file({"h": np.zeros(3, np.uint64)}, tmp_path / "z")
    with pytest.raises(kiln.LoadError, match="tensor h is of dtype U64"):
        kiln.load(tmp_path / "z")


class Point(NamedTuple):
    x: int
    y: int


def test_what_cannot_be_saved_is_named(tmp_path: Path) -> None:
    for value, message in [
        ({"optimizer": {"foo": [1, 2, 3, object()]}}, r"optimizer\.foo\[3\] is a object"),
        ({"a": collections.defaultdict(int)}, r"a is a defaultdict"),
        ({"a": Point(1, 2)}, "a is a Point"),
        ({"a": {"b": np.float32(1)}}, r"a\.b is a float32(.|\n)*item"),
        (nn.Linear(1, 1), r"got a Linear(.|\n)*state_dict"),
        ({"a": np.ones(2)}, "a is a ndarray"),
        ({(1, 2): 3}, "a key of the dict is a tuple"),
        ({"x": {True: 1}}, "a key of x is a bool"),
        ([lambda: 1], r"\[0\] is a function"),
        (1j, "got a complex"),
    ]:
        with pytest.raises(kiln.ArgumentError, match=message):
            kiln.save(value, tmp_path / "x")
    with pytest.raises(kiln.ArgumentError, match="path"):
        kiln.save(1, 3)  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == []


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    kiln.save({"a": kiln.ones(2)}, path)

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(serialization.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        kiln.save({"a": kiln.zeros(2)}, path)
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["x"]
    assert kiln.load(path)["a"].tolist() == [1.0, 1.0]


def test_the_data_is_on_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(serialization.os, "fsync", lambda fd: (events.append("fsync"), fsync(fd))[1])
    monkeypatch.setattr(serialization.os, "replace", lambda a, b: (events.append("replace"), replace(a, b))[1])
    kiln.save(kiln.ones(2), tmp_path / "x")
    assert events == ["fsync", "replace", "fsync"]


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        kiln.load(tmp_path / "none")
    with pytest.raises(FileNotFoundError):
        kiln.save(1, tmp_path / "none" / "x")


class Bomb:
    def __reduce__(self) -> Any:
        return (os.mkdir, ("exploded",))


def test_pickles_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(kiln.LoadError):
        kiln.load(tmp_path / "x")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    "structure",
    [
        "not json",
        '{"tensor": "missing"}',
        '{"dict": 3}',
        '{"dict": [["a"]]}',
        '{"dict": [[[1], 2]]}',
        '{"eval": "1+1"}',
        '{"float": "7"}',
        '{"tuple": null}',
        "{}",
        "[" * 100_000 + "]" * 100_000,
        "3",  # leaves the tensor unnamed
    ],
    ids=lambda s: s[:20],
)
def test_hostile_structures(tmp_path: Path, structure: str) -> None:
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    path = file_of(tmp_path / "x", {"__metadata__": {"kiln": structure}, "w": entry}, b"\0" * 4)
    with pytest.raises(kiln.LoadError):
        kiln.load(path)


def test_damaged_files(tmp_path: Path) -> None:
    kiln.save({"a": kiln.ones(20)}, tmp_path / "x")
    whole = (tmp_path / "x").read_bytes()
    for cut in (0, 4, 8, 20, len(whole) - 1):
        (tmp_path / "y").write_bytes(whole[:cut])
        with pytest.raises(kiln.LoadError, match="damaged"):
            kiln.load(tmp_path / "y")
    far = {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 2**60]}}
    huge = {"w": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}}
    for header in (far, huge, b"\xff" * 9, [1, 2]):
        with pytest.raises(kiln.LoadError):
            kiln.load(file_of(tmp_path / "z", header, b"\0" * 4))


def test_every_kind_of_data(tmp_path: Path) -> None:
    t = kiln.ones(2)
    tree = {
        "set": {1, "a", None, 2.5},
        "frozen": frozenset({(1, 2)}),
        "bytes": b"\x00\xff",
        "dtype": kiln.float64,
        "device": kiln.device("cpu"),
        "ordered": collections.OrderedDict(b=1, a=t),
    }
    kiln.save(tree, tmp_path / "x")
    loaded = kiln.load(tmp_path / "x")
    assert loaded["ordered"].pop("a").tolist() == [1.0, 1.0] and list(loaded["ordered"]) == ["b"]
    tree["ordered"].pop("a")  # type: ignore[attr-defined]
    assert loaded == tree and {k: type(v) for k, v in loaded.items()} == {k: type(v) for k, v in tree.items()}
    assert loaded["dtype"] is kiln.float64


def test_every_dtype(tmp_path: Path) -> None:
    names = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64")
    dtypes = [getattr(kiln, n) for n in names if hasattr(kiln, n)]
    tensors = {d.name: kiln.tensor([0, 1, 1], dtype=d) for d in dtypes}
    kiln.save(tensors, tmp_path / "x")
    loaded = kiln.load(tmp_path / "x")
    assert {k: (v.dtype, v.tolist()) for k, v in loaded.items()} == {
        k: (v.dtype, v.tolist()) for k, v in tensors.items()
    }


def test_the_same_memory_is_kept_once(tmp_path: Path) -> None:
    w = kiln.ones(1000, 10)
    kiln.save({"a": w, "b": w.detach(), "c": [w.t(), w.reshape(10000)]}, tmp_path / "x")
    loaded = kiln.load(tmp_path / "x")
    assert loaded["a"] is loaded["b"] and loaded["c"][0].shape == (10, 1000)
    kiln.save({"a": w, "b": w.detach()}, tmp_path / "y")
    assert (tmp_path / "y").stat().st_size < 41_000


def test_recursive_data_are_refused(tmp_path: Path) -> None:
    a: list[Any] = [1]
    a.append({"again": a})
    with pytest.raises(kiln.ArgumentError, match=r"\[1\]\.again contains itself"):
        kiln.save(a, tmp_path / "x")
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(kiln.ArgumentError, match="too deeply"):
        kiln.save(deep, tmp_path / "x")
    while deep:  # taken apart by hand: Python's own way down is as deep
        deep = deep[0]
    twice = [1]
    kiln.save([twice, twice], tmp_path / "x")


def test_open_files(tmp_path: Path) -> None:
    memory = io.BytesIO()
    kiln.save({"a": kiln.ones(3)}, memory)
    memory.seek(0)
    assert kiln.load(memory)["a"].tolist() == [1.0] * 3
    with open(tmp_path / "x", "wb") as file:
        kiln.save([1, kiln.zeros(2)], file)
    with open(tmp_path / "x", "rb") as file:
        assert kiln.load(file)[0] == 1
    with pytest.raises(kiln.LoadError, match="the file is damaged: it ends after 3 bytes"):
        kiln.load(io.BytesIO(b"abc"))


def test_places(tmp_path: Path) -> None:
    kiln.save(kiln.ones(2), tmp_path / "x")
    for place in (None, "cpu", kiln.device("cpu"), {"cuda:0": "cpu"}):
        assert kiln.load(tmp_path / "x", place).tolist() == [1.0, 1.0]
    with pytest.raises(kiln.DeviceError):
        kiln.load(tmp_path / "x", map_location="cuda")
    for weights_only in (True, False, None):  # there is nothing to unpickle
        assert kiln.load(tmp_path / "x", weights_only=weights_only, mmap=True).tolist() == [1.0, 1.0]
    (tmp_path / "pickle").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(kiln.LoadError, match="is a pickle"):
        kiln.load(tmp_path / "pickle", weights_only=False)


def test_errors_say_what_is_wrong_with_a_file(tmp_path: Path) -> None:
    kiln.save({"w": kiln.ones(20), "flag": kiln.tensor([True])}, tmp_path / "x")
    whole = (tmp_path / "x").read_bytes()

    def told(data: bytes) -> str:
        (tmp_path / "y").write_bytes(data)
        with pytest.raises(kiln.LoadError) as caught:
            kiln.load(tmp_path / "y")
        assert caught.value.op == "load" and str(tmp_path / "y") in str(caught.value)
        return caught.value.message

    assert "ends inside its header" in told(whole[:30])
    assert "ends inside tensor w, 79 of 80 bytes in" in told(whole[:-2])
    assert "bytes follow" in told(whole + b"x")
    assert "neither 0 nor 1" in told(whole[:-1] + b"\x07")
    at = len(whole) - 10
    assert "checksum" in told(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    swapped = whole.replace(b'"w\\"', b'"v\\"')
    assert swapped != whole and "damaged" in told(swapped)
    assert "pickle" in told(pickle.dumps({"a": 1})) and "pickle" in told(b"PK\x03\x04" + bytes(40))
    noticed = 0
    for k in range(8, len(whole)):  # no single changed byte goes unnoticed, unless it does no harm
        try:
            loaded = kiln.load(io.BytesIO(whole[:k] + bytes([whole[k] ^ 4]) + whole[k + 1 :]))
        except kiln.LoadError:
            noticed += 1
        else:
            assert loaded["w"].tolist() == [1.0] * 20 and loaded["flag"].tolist() == [True]
    assert noticed > 0.9 * (len(whole) - 8)


def test_large_tensors_go_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorfile, "_PIECE", 64)
    x = kiln.arange(1000.0)
    kiln.save(x, tmp_path / "x")
    assert kiln.load(tmp_path / "x").tolist() == x.tolist()


def test_a_full_disk(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    signal = pytest.importorskip("signal")
    path = tmp_path / "x"
    kiln.save({"a": kiln.ones(2)}, path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(kiln.SaveError, match="the file that was there is as it was") as caught:
            kiln.save({"a": kiln.ones(100_000)}, path)
        with pytest.raises(kiln.SaveError, match="no file was left behind"):
            kiln.save({"a": kiln.ones(100_000)}, tmp_path / "new")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert isinstance(caught.value, OSError) and caught.value.errno == errno.EFBIG
    assert os.listdir(tmp_path) == ["x"] and kiln.load(path)["a"].tolist() == [1.0, 1.0]


def test_an_interrupted_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    kiln.save({"a": kiln.ones(2)}, path)

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    for place in ("fsync", "replace"):
        monkeypatch.setattr(serialization.os, place, interrupted)
        with pytest.raises(KeyboardInterrupt):
            kiln.save({"a": kiln.zeros(2)}, path)
        monkeypatch.undo()
        assert os.listdir(tmp_path) == ["x"] and kiln.load(path)["a"].tolist() == [1.0, 1.0]
