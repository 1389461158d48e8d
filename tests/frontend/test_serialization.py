"""`kiln.save` and `kiln.load`: exact round trips, atomic writing, damaged and hostile files."""

from __future__ import annotations

import json
import math
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kiln
from kiln import nn, serialization


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
    save_file({"h": np.zeros(3, np.uint16)}, tmp_path / "z")
    with pytest.raises(kiln.LoadError, match="tensor h is of dtype U16"):
        kiln.load(tmp_path / "z")


def test_what_cannot_be_saved_is_named(tmp_path: Path) -> None:
    for value, message in [
        ({"a": [1, {2, 3}]}, r"a\.1 is a set"),
        (nn.Linear(1, 1), r"got a Linear(.|\n)*state_dict"),
        ({"a": np.ones(2)}, "a is a ndarray"),
        ({(1, 2): 3}, "a key of the dict is a tuple"),
        ({"x": {True: 1}}, "a key of x is a bool"),
        ([kiln.float32], "0 is a DType"),
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
