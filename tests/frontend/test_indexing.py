"""`x[index]` and `x[index] = value`: against a table of torch's answers, captured, differentiated, and refused."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kiln

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "indexing.json").read_text())


def decoded(item: Any) -> Any:
    """An item of an index as the table writes it (see tests/tools/make_indexing.py)."""
    if not isinstance(item, dict):
        return ... if item == "..." else item
    ((kind, what),) = item.items()
    if kind == "slice":
        return slice(*what)
    if kind == "tensor":
        return kiln.tensor(what, dtype=kiln.int64)
    return kiln.tensor(what, dtype=kiln.bool) if kind == "mask" else what


def counted(shape: list[int]) -> kiln.Tensor:
    return kiln.from_numpy(np.arange(np.prod(shape, dtype=int)).reshape(shape))


def value_of(written: Any) -> Any:
    return (
        kiln.from_numpy(np.asarray(-100 - counted(written["shape"]).numpy())) if isinstance(written, dict) else written
    )


@pytest.mark.parametrize("number", range(len(GOLDEN)))
def test_torch_says_so(number: int) -> None:
    case = GOLDEN[number]
    x, index = counted(case["shape"]), tuple(decoded(i) for i in case["index"])
    if "error" in case:
        with pytest.raises(getattr(builtins, case["error"])) as raised:
            if "value" in case:
                x[index] = value_of(case["value"])
            else:
                x[index]
        assert isinstance(raised.value, kiln.KilnError)
        return
    if "value" in case:
        x[index] = value_of(case["value"])
        assert x.numpy().ravel().tolist() == case["data"]
        return
    got = x[index].numpy()
    assert list(got.shape) == case["result"]
    assert got.ravel().tolist() == case["data"]


def test_captured_reads_and_writes_are_eager() -> None:
    """Every tenth case without masks, in one program each way."""
    cases = [c for c in GOLDEN if "error" not in c and "mask" not in str(c["index"])][::7]
    tables = [counted(c["shape"]) for c in cases]
    indices = [tuple(decoded(i) for i in c["index"]) for c in cases]
    values = [value_of(c["value"]) if "value" in c else None for c in cases]

    @kiln.compile
    def every(tables: list[kiln.Tensor], indices: list[Any], values: list[Any]) -> list[kiln.Tensor]:
        made = []
        for x, index, value in zip(tables, indices, values, strict=True):
            if value is None:
                made.append(x[index])
            else:
                made.append(x.clone())
                made[-1][index] = value
        return made

    for _ in range(2):
        for got, c in zip(every(tables, indices, values), cases, strict=True):
            assert got.numpy().ravel().tolist() == c["data"]


def test_narrow_ints_index_and_are_indexed() -> None:
    x = kiln.tensor([[1, 2], [3, 4]], dtype=kiln.int8)
    i = kiln.tensor([1, -2, 1], dtype=kiln.int32)
    assert x[i].tolist() == [[3, 4], [1, 2], [3, 4]] and x[i].dtype is kiln.int8
    x[i, 0] = 30
    assert x.tolist() == [[30, 2], [30, 4]]
    assert x.index_select(1, i[:1]).tolist() == [[2], [4]] and x.sort(1, descending=True).indices.dtype is kiln.int64


def test_basic_indices_are_views_and_tensors_are_not() -> None:
    x = kiln.zeros(3, 4)
    x[1:, 2] += 1
    x[0][3] = 5
    assert x.tolist() == [[0, 0, 0, 5], [0, 0, 1, 0], [0, 0, 1, 0]]
    for index in ([0], kiln.tensor([0]), kiln.tensor(0), kiln.tensor([True, False, False])):
        row = x[index]
        row += 100
    assert x.numpy().max() == 5


def test_the_last_value_written_stays_and_alone_gets_a_gradient() -> None:
    x = kiln.zeros(3)
    v = kiln.tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True)
    x[[2, 0, 2, 0]] = v
    assert x.tolist() == [4.0, 0.0, 3.0]
    (x * kiln.tensor([1.0, 10.0, 100.0])).sum().backward()
    assert v.grad is not None and v.grad.tolist() == [0.0, 0.0, 100.0, 1.0]


def test_a_mask_with_one_value_is_captured_with_many_refused() -> None:
    @kiln.compile
    def fill(x: kiln.Tensor, mask: kiln.Tensor, row: kiln.Tensor) -> kiln.Tensor:
        x = x.clone()
        x[mask] = row
        x[mask[:, None] & (x > 4)] = -1.0
        return x

    x, mask, row = (
        kiln.arange(12.0).reshape(4, 3),
        kiln.tensor([True, False, True, False]),
        kiln.tensor([9.0, 8.0, 0.0]),
    )
    wanted = x.numpy().copy()
    wanted[mask.numpy()] = row.numpy()
    wanted[mask.numpy()[:, None] & (wanted > 4)] = -1
    for _ in range(2):
        assert (fill(x, mask, row).numpy() == wanted).all()

    with pytest.raises(kiln.CaptureError, match="mask"):
        kiln.jit.trace(lambda x, m: x[m], (x, mask))

    def many(x: kiln.Tensor, mask: kiln.Tensor) -> None:
        x[mask] = kiln.ones(2, 3)

    with pytest.raises(kiln.CaptureError, match=r"kiln\.where"):
        kiln.jit.trace(many, (x.clone(), mask))
    written = kiln.compile(many, fullgraph=True)
    for _ in range(2):
        y = x.clone()
        written(y, mask)
        assert y.tolist()[0::2] == [[1.0] * 3] * 2 and y.tolist()[1::2] == x.tolist()[1::2]


def test_constant_masks_and_lists_are_captured() -> None:
    picked = kiln.compile(lambda x: (x[[True, False, True]], x[[2, 0]], x[True], x[np.array([[0, 1], [1, 2]])]))
    x = kiln.arange(6.0).reshape(3, 2)
    for _ in range(2):
        a, b, c, d = picked(x)
        assert a.tolist() == [[0, 1], [4, 5]] and b.tolist() == [[4, 5], [0, 1]] and c.shape == (1, 3, 2)
        assert (d.numpy() == x.numpy()[[[0, 1], [1, 2]]]).all()


def test_errors_name_value_and_size() -> None:
    x = kiln.zeros(3, 4)
    for run in (lambda i: x[:, i], kiln.compile(lambda i: x[:, i])):
        run(kiln.tensor([-4, 3]))
        with pytest.raises(kiln.KilnIndexError, match=r"index -5 is out of bounds for dimension 1 with size 4"):
            run(kiln.tensor([0, -5]))
    with pytest.raises(kiln.KilnIndexError, match="float32 is no index"):
        x[kiln.tensor([0.0])]
    with pytest.raises(kiln.KilnIndexError, match="uint8 is no index"):
        x[kiln.tensor([0], dtype=kiln.uint8)]
    with pytest.raises(kiln.KilnIndexError, match=r"mask's shape \[2\]"):
        x[kiln.tensor([True, False])]
    with pytest.raises(kiln.KilnIndexError, match="broadcast together"):
        x[[0, 1], [0, 1, 2]]
    with pytest.raises(kiln.KilnIndexError, match="size 0"):
        kiln.zeros(0, 2)[[0]]
    with pytest.raises(kiln.ShapeError, match="does not fit"):
        x[[0, 1]] = kiln.zeros(3)
    with pytest.raises(kiln.ArgumentError, match="list of tensors"):
        x[[kiln.tensor(0), kiln.tensor(1)]]


def test_a_failed_write_leaves_the_tensor_alone() -> None:
    x = kiln.ones(3)
    with pytest.raises(kiln.KilnIndexError):
        x[kiln.tensor([0, 7])] = 5.0
    assert x.tolist() == [1, 1, 1]

    @kiln.compile
    def write(x: kiln.Tensor, i: kiln.Tensor) -> None:
        x[i] = 5.0

    write(x, kiln.tensor([0, 2]))
    with pytest.raises(kiln.KilnIndexError):
        write(x, kiln.tensor([1, 7]))
    assert x.tolist() == [5, 1, 5]


def test_gradients_through_reads_and_writes() -> None:
    """Against the Jacobian written by hand: reads add up, writes cut off."""
    x = kiln.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], dtype=kiln.float64, requires_grad=True)
    (x[[0, 2, 0], [1, 1, 1]] * kiln.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [[0, 4], [0, 0], [0, 2]]
    x.grad = None
    y = x * 2
    y[x > 3.5] = 0.0
    y[kiln.tensor([0])] *= 3
    y.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [[6, 6], [2, 0], [0, 0]]


def test_a_write_through_a_view_reaches_its_base() -> None:
    x = kiln.zeros(2, 3, requires_grad=True)
    y = x * 1
    y[1][kiln.tensor([0, 2])] = 7.0
    assert y.tolist() == [[0, 0, 0], [7, 0, 7]]
    y.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [[1, 1, 1], [0, 1, 0]]


# ------------------------------------------------------------------------------- writes in one pass


@pytest.mark.parametrize("dtype", [kiln.float32, kiln.int64, kiln.bool, kiln.float16])
def test_writes_at_indices_go_straight_to_memory(dtype: Any) -> None:
    """The same as a scatter that is then copied back: order of repeated indices, wrapping, strides, views."""
    numbers = np.arange(24) % 5
    for index in ([3, -1, 3], np.array([[0, 1], [2, 2]]), [], slice(None)):
        x = kiln.tensor(numbers).to(dtype).reshape(6, 4)
        wanted = x.numpy().copy()
        buffer, version = x._buffer, x._buffer.version
        shape = wanted[index].shape
        value = np.random.default_rng(1).integers(0, 3, shape)
        x[kiln.tensor(index) if isinstance(index, np.ndarray) else index] = kiln.tensor(value).to(dtype)
        for place, row in zip(np.arange(6)[index].reshape(-1), value.reshape(-1, 4), strict=True):
            wanted[place] = row.astype(wanted.dtype)
        assert x.numpy().tolist() == wanted.tolist()
        assert x._buffer is buffer
        assert x._buffer.version == version + 1


def test_writes_at_indices_of_views_and_of_itself() -> None:
    x = kiln.arange(12.0).reshape(3, 4)
    x[1:][kiln.tensor([1, 0])] = x[:2]
    assert x.tolist() == [[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0], [0.0, 1.0, 2.0, 3.0]]
    x[:, 1][kiln.tensor([0, 2])] = 9.0
    assert x[:, 1].tolist() == [9.0, 5.0, 9.0]
    i = kiln.tensor([2, 0, 1])
    i[i] = i
    assert i.tolist() == [0, 1, 2]
    mask = x > 5
    x[mask] = x[0, 1] * 2
    assert x.tolist() == [[0.0, 18.0, 2.0, 3.0], [4.0, 5.0, 18.0, 18.0], [0.0, 18.0, 2.0, 3.0]]


@pytest.mark.parametrize("index", [[0, 3], [-4, 0], [2, 1, 7]])
def test_a_write_out_of_range_writes_nothing(index: list[int]) -> None:
    x = kiln.zeros(3, 2)
    with pytest.raises(kiln.KilnIndexError, match="out of"):
        x[kiln.tensor(index)] = 1.0
    assert x.tolist() == [[0.0, 0.0]] * 3
    frozen = kiln.full((2, 1), 1.0).expand(2, 3)
    with pytest.raises(kiln.GradError, match="expanded"):
        frozen[kiln.tensor([0])] = 1.0


def test_writes_at_indices_are_taped_and_captured_as_before() -> None:
    def f(x: Any, v: Any, i: Any) -> Any:
        y = x * 1
        y[i] = v
        return (y * y).sum()

    found = []
    for g in (f, kiln.compile(f)):
        for _ in range(2):
            x, v = kiln.arange(4.0).requires_grad_(), kiln.full((2,), 5.0).requires_grad_()
            g(x, v, kiln.tensor([0, 2])).backward()
            assert x.grad is not None
            assert v.grad is not None
            found.append((x.grad.tolist(), v.grad.tolist()))
    assert found == [([0.0, 2.0, 0.0, 6.0], [10.0, 10.0])] * 4
