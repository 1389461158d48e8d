"""Automatic mixed precision: regions, what functions compute in inside of them, scaled gradients."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import kiln
import kiln.nn.functional as NF
from kiln import casting, jit, nn, overriding
from kiln.casting import Rule
from kiln.pytree import flatten
from kiln.utils.checkpoint import checkpoint
from tests.frontend.amp_cases import CASES, MIXES, Case, numbers, value

GOLDEN = json.loads((Path(__file__).resolve().parents[1] / "golden" / "autocast.json").read_text())
BF16 = kiln.bfloat16
REGION = {"device_type": "cpu", "dtype": BF16}


@pytest.fixture(autouse=True)
def _no_region_is_left() -> Iterator[None]:
    yield
    assert kiln.base.MODES.autocast is None and not casting.WEIGHTS.depth and not casting.WEIGHTS.known


def operands(case: Case, mix: str, low: str) -> list[Any]:
    made = []
    for k, (shape, regular) in enumerate(zip(case.shapes, case.regular, strict=True)):
        dtype = low if mix == "low" or (mix == "mixed" and not k) else "float64" if mix == "float64" else "float32"
        made.append(kiln.tensor(numbers(shape, regular)).reshape(shape).to(getattr(kiln, dtype)))
    return made


def tensors(made: Any) -> list[Any]:
    return [x for x in flatten(made)[0] if isinstance(x, kiln.Tensor)]


def computed(case: Case, given: list[Any]) -> list[Any]:
    names = {"t": kiln, "F": NF, "i": lambda *values: kiln.tensor(values)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kiln.manual_seed(3)
        return tensors(value(case, names, given))


def same(a: Any, b: Any) -> bool:
    """Bit for bit; NaNs are alike."""
    return a.dtype is b.dtype and a.shape == b.shape and bool(kiln.all((a == b) | ((a != a) & (b != b))))


def all_same(a: Sequence[Any], b: Sequence[Any]) -> bool:
    return len(a) == len(b) and all(map(same, a, b))


# ------------------------------------------------------------------------------------------------- the tables


@pytest.fixture
def _rules_of_gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """On the CPU, for functions on a GPU take long to compile."""
    monkeypatch.setitem(casting.TABLES, "cpu", casting.TABLES["cuda"])
    monkeypatch.setattr(casting, "CHOICES", dict.fromkeys(("cpu", "cuda"), casting.CHOICES["cuda"]))
    casting.rules.cache_clear()
    yield
    monkeypatch.undo()
    casting.rules.cache_clear()


def check_dtypes(key: str, differ: frozenset[str]) -> None:
    """Against PyTorch's. What it refuses kiln may take; what kiln lacks for these dtypes it refuses outside, too."""
    low = key.split()[1]
    wrong = []
    for case in CASES:
        for mix, wanted in zip(MIXES, GOLDEN[key][case.name], strict=True):
            given = operands(case, mix, low)
            try:
                with kiln.autocast("cpu", dtype=getattr(kiln, low)):
                    got = " ".join(x.dtype.name for x in computed(case, given))
            except kiln.KilnError as error:
                try:
                    computed(case, given)
                except kiln.KilnError:
                    continue
                got = "-" if wanted == "-" else str(error)
            if got != wanted and wanted not in ("-", "?") and case.name not in differ:
                wrong.append((case.name, mix, wanted, got))
    assert not wrong


@pytest.mark.parametrize("low", ["bfloat16", "float16"])
def test_result_dtypes_are_those_of_pytorch(low: str) -> None:
    check_dtypes(f"cpu {low}", frozenset())


@pytest.mark.usefixtures("_rules_of_gpus")
def test_result_dtypes_are_those_of_pytorch_on_gpus() -> None:
    check_dtypes("cuda float16", frozenset({"linalg.cross"}))  # which there takes the dtype of its first operand


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_every_name_of_the_tables_is_a_function_that_was_compared(kind: str) -> None:
    compared = {case.name.split(":")[0] for case in CASES}
    names = [(rule, n) for rule, text in casting.TABLES[kind].items() for n in text.split()]
    assert len({n for _, n in names}) == len(names) > 60, "a function has two rules"
    for rule, name in [*names, *[(None, n) for n in casting.CHOICES[kind]]]:
        assert casting.named(name), name
        assert rule is Rule.THROUGH or name in compared, name


def expected(case: Case, rule: Rule | None, given: list[Any]) -> list[Any]:
    """The operands that a function gets, written down as casts."""
    if rule is Rule.LOW:
        return [x.to(BF16) for x in given]
    if rule is Rule.FLOAT32 or (rule is Rule.FLOAT32_UNLESS_TOLD and "dtype=" not in case.text):
        return [x.float() for x in given]
    if rule is Rule.WIDEST and any(x.dtype is kiln.float32 for x in given):
        return [x.float() for x in given]
    return given


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_results_are_those_of_explicit_casts(kind: str, request: pytest.FixtureRequest) -> None:
    if kind == "cuda":
        request.getfixturevalue("_rules_of_gpus")
    table = {name: rule for rule, text in casting.TABLES[kind].items() for name in text.split()}
    count = 0
    for case in CASES:
        rule = table.get(case.name.split(":")[0])
        if rule in (None, Rule.THROUGH, Rule.REFUSED):
            continue
        for mix in ("float32", "mixed", "low"):
            given = operands(case, mix, "bfloat16")
            with kiln.autocast(**REGION):
                got = computed(case, given)
            assert all_same(got, computed(case, expected(case, rule, given))), (case.name, mix)
            count += 1
    assert count > 200


def test_what_calls_the_users_code_lets_regions_through() -> None:
    """Other public functions turn autocast off for what they call."""
    for kind in casting.KINDS:
        through = {f for name in casting.TABLES[kind][Rule.THROUGH].split() for f in casting.named(name)}
        for name, function in overriding.public_functions().items():
            hints = [str(p.annotation) for p in inspect.signature(function).parameters.values()]
            if any("Callable" in hint for hint in hints):
                assert function in through, name
    x = kiln.ones(2, 2)
    with kiln.autocast(**REGION):
        assert kiln.vmap(lambda row: row @ x)(x).dtype is BF16
        assert kiln.cond(x.sum() > 0, lambda x: x @ x, lambda x: (x - 1) @ x, (x,)).dtype is BF16
        loss = NF.triplet_margin_with_distance_loss(x, x, x, distance_function=lambda a, b: (a @ b).sum(1))
    assert loss.dtype is BF16


def test_unlisted_functions_are_one_op() -> None:
    """Whatever they are made of: gelu has an exp in it, which by itself would give float32 on a GPU."""
    x = kiln.linspace(-1, 1, 9).to(BF16)
    with kiln.autocast(**REGION):
        assert same(NF.gelu(x), NF.gelu(x)) and NF.gelu(x).dtype is BF16
        inside = kiln.dot(x, x), kiln.mv(x.reshape(3, 3).float(), x[:3].float())
    assert inside[0].dtype is BF16 and inside[1].dtype is kiln.float32


@pytest.mark.usefixtures("_rules_of_gpus")
def test_what_is_unsafe_is_refused() -> None:
    p = kiln.full((2,), 0.5)
    with kiln.autocast("cpu", dtype=kiln.float16):
        with pytest.raises(kiln.DTypeError, match=r"binary_cross_entropy: is unsafe under autocast(?s:.*)with_logits"):
            nn.BCELoss()(p, p)
        assert nn.BCEWithLogitsLoss()(p.half(), p).dtype is kiln.float32
        with pytest.raises(kiln.DTypeError, match=r"atan2: takes float32 and float16(?s:.*)to\(kiln.float16\)"):
            kiln.atan2(p.to(BF16), p)


# ----------------------------------------------------------------------------------------------------- regions


def test_regions_nest_and_can_be_left_out() -> None:
    x = kiln.ones(2, 2)
    with kiln.autocast("cpu") as region:
        assert isinstance(region, kiln.autocast) and (x @ x).dtype is BF16
        with kiln.autocast("cpu", dtype=kiln.float16):
            assert (x @ x).dtype is kiln.float16 is kiln.get_autocast_dtype("cpu")
            with kiln.autocast("cpu", enabled=False):
                assert (x @ x).dtype is kiln.float32 and not kiln.is_autocast_enabled("cpu")
            assert (x @ x).dtype is kiln.float16
        with pytest.raises(ValueError, match="left"), kiln.autocast("cpu", enabled=False):
            raise ValueError("left")
        assert (x @ x).dtype is BF16 and kiln.is_autocast_enabled("cpu") and not kiln.is_autocast_enabled("cuda")
    assert (x @ x).dtype is kiln.float32


def test_decorators() -> None:
    x = kiln.ones(2, 2)

    @kiln.autocast("cpu")
    def product(a: Any) -> Any:
        """Multiplies."""
        return product(a - 1) if a[0, 0] > 1 else a @ a

    @kiln.autocast("cpu")
    def steps() -> Iterator[Any]:
        yield x @ x
        yield x @ x

    assert product(x + 1).dtype is BF16 and product.__doc__ == "Multiplies."
    made = steps()
    assert next(made).dtype is BF16 and (x @ x).dtype is kiln.float32 and next(made).dtype is BF16
    with pytest.raises(kiln.ArgumentError, match="decorates a function"):
        kiln.autocast("cpu")(3)  # type: ignore[type-var]


def test_older_names() -> None:
    x = kiln.ones(2, 2)
    with kiln.cpu.amp.autocast():
        assert (x @ x).dtype is BF16
    with kiln.cuda.amp.autocast(enabled=False):
        assert (x @ x).dtype is kiln.float32
    assert kiln.cpu.is_available() and kiln.cpu.device_count() == 1 and kiln.cpu.current_device() == "cpu"
    assert kiln.amp.is_autocast_available("cuda") and not kiln.amp.is_autocast_available("xla")
    assert issubclass(kiln.cpu.amp.GradScaler, kiln.amp.GradScaler) and kiln.cpu.amp.GradScaler().is_enabled()


def test_what_is_not_possible() -> None:
    with pytest.warns(UserWarning, match="there is none"):
        region = kiln.autocast("cuda")
    with region, pytest.warns(UserWarning, match=r"takes bfloat16 and float16, not float32"):
        assert not kiln.is_autocast_enabled("cuda")
        kiln.autocast("cpu", dtype=kiln.float32)
    for wrong in ("xla", 3):
        with pytest.raises(kiln.InvalidValueError, match="autocast"):
            kiln.autocast(wrong)  # type: ignore[arg-type]
    with pytest.raises(kiln.InvalidValueError, match="bfloat16 and float16"):
        kiln.set_autocast_dtype("cpu", kiln.float64)
    with pytest.raises(kiln.ArgumentError, match="dtype"):
        kiln.autocast("cpu", dtype="bfloat16")  # type: ignore[arg-type]


def test_the_state_is_the_threads() -> None:
    x, seen = kiln.ones(2, 2), []
    with kiln.autocast("cpu"):
        thread = threading.Thread(target=lambda: seen.append((x @ x).dtype))
        thread.start()
        thread.join()
    assert seen == [kiln.float32]


def test_settings() -> None:
    x = kiln.ones(2, 2)
    try:
        kiln.set_autocast_dtype("cpu", kiln.float16)
        assert (x @ x).dtype is kiln.float32
        kiln.set_autocast_enabled("cpu", True)
        assert (x @ x).dtype is kiln.float16 and kiln.is_autocast_cache_enabled()
        kiln.set_autocast_cache_enabled(False)
        with kiln.autocast("cpu"):
            assert not kiln.is_autocast_cache_enabled() and (x @ x).dtype is kiln.float16
    finally:
        kiln.set_autocast_enabled("cpu", False)
        kiln.set_autocast_dtype("cpu", BF16)
        kiln.set_autocast_cache_enabled(True)


def test_operators_methods_and_functions_imported_before() -> None:
    x = kiln.ones(2, 2)
    with kiln.autocast("cpu"):
        assert {t.dtype for t in (x @ x, x.mm(x), x.matmul(other=x), kiln.matmul(x, x), nn.Linear(2, 2)(x))} == {BF16}


def test_layers_of_a_model() -> None:
    """As in PyTorch on the CPU: norms and activations take what comes, residual sums are float32."""
    x = kiln.randn(6, 2, 4)
    with kiln.autocast("cpu"):
        low = nn.Linear(4, 4)(x)
        for layer in (nn.LayerNorm(4), nn.RMSNorm(4), nn.GELU(), nn.Dropout(0.5), nn.BatchNorm1d(2)):
            assert layer(low).dtype is BF16
        assert nn.TransformerEncoderLayer(4, 2, 8)(x).dtype is kiln.float32
        out, weights = nn.MultiheadAttention(4, 2)(x, x, x)
        assert out.dtype is weights.dtype is BF16


RECURRENT = [
    ("LSTM", {}, ("bfloat16", "bfloat16", "bfloat16")),
    ("LSTM", {"proj_size": 2}, ("bfloat16", "bfloat16", "float32")),
    ("GRU", {}, ("float32", "float32")),
    ("RNN", {}, ("bfloat16", "bfloat16")),
    ("LSTMCell", {}, ("float32", "float32")),
    ("GRUCell", {}, ("float32",)),
    ("RNNCell", {}, ("bfloat16",)),
]
"""What PyTorch's layers give on the CPU, of float32."""


@pytest.mark.parametrize(("name", "options", "wanted"), RECURRENT, ids=lambda x: str(x))
def test_recurrent_layers(name: str, options: dict[str, int], wanted: tuple[str, ...]) -> None:
    layer: Any = getattr(nn, name)(3, 4, **options)
    x = kiln.randn(2, 5, 3)[0] if name.endswith("Cell") else kiln.randn(2, 5, 3)
    with kiln.autocast("cpu"):
        made = tensors(layer(x))
    assert tuple(t.dtype.name for t in made) == wanted
    if name == "LSTM" and not options:
        assert all_same(made, tensors(copy.deepcopy(layer).to(BF16)(x.to(BF16))))
    sum(t.float().sum() for t in made).backward()
    assert {p.grad.dtype for p in layer.parameters()} == {kiln.float32}


# ---------------------------------------------------------------------------------------- gradients and the cache


def model() -> Any:
    kiln.manual_seed(7)
    return nn.Sequential(nn.Linear(6, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 4))


def batch() -> tuple[Any, Any]:
    kiln.manual_seed(8)
    return kiln.randn(5, 6), kiln.randint(0, 4, (5,))


def gradients(net: Any, loss: Any) -> list[Any]:
    for p in net.parameters():
        p.grad = None
    loss.backward()
    return [loss.detach(), *[p.grad for p in net.parameters()]]


def test_gradients_are_those_of_explicit_casts() -> None:
    w, x = kiln.randn(3, 4, requires_grad=True), kiln.randn(2, 4)
    with kiln.autocast("cpu"):
        y = NF.linear(x, w).float().square().sum()
    y.backward()
    assert w.grad is not None
    got, w.grad = w.grad, None
    NF.linear(x.to(BF16), w.to(BF16)).float().square().sum().backward()
    assert same(got, w.grad) and got.dtype is kiln.float32


def twice(w: Any, x: Any, cache: bool, between: Callable[[], None] = lambda: None) -> Any:
    with kiln.autocast("cpu", cache_enabled=cache):
        y = x @ w
        between()
        return (y @ w).float().sum()


def test_a_weight_is_cast_once_and_nothing_else_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    casts: list[Any] = []
    run = casting.dispatch.run

    def noting(op: Any, given: Any, *rest: Any) -> Any:
        if op.name == "cast":
            casts.append(given)
        return run(op, given, *rest)

    monkeypatch.setattr(casting.dispatch, "run", noting)
    w, x = kiln.randn(4, 4, requires_grad=True), kiln.randn(3, 4)
    found = []
    for cache, count in ((True, 1), (False, 2)):
        casts.clear()
        y = twice(w, x, cache)
        assert sum(given[0] is w for given in casts) == count
        y.backward()
        found.append((y.detach(), w.grad))
        w.grad = None
    assert all_same(*found)


def test_the_cache_knows_of_writes_and_of_the_tape() -> None:
    w, x = kiln.randn(4, 4, requires_grad=True), kiln.randn(3, 4)

    def write() -> None:
        with kiln.no_grad():
            w.mul_(2)

    y = twice(w, x, True, write)
    half = w.detach() / 2
    assert same(y.detach(), ((x.to(BF16) @ half.to(BF16)) @ w.detach().to(BF16)).float().sum())
    with kiln.autocast("cpu"):
        with kiln.no_grad():
            assert not (x @ w).requires_grad
        z = x @ w  # the weight was cast, without a tape
        assert z.requires_grad and casting.WEIGHTS.known
        kiln.clear_autocast_cache()
        assert not casting.WEIGHTS.known
        w.data = w.data * 3
        assert same((x @ w).detach(), x.to(BF16) @ w.detach().to(BF16))


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints(reentrant: bool) -> None:
    net, (x, y) = model(), batch()

    def loss(again: bool) -> Any:
        with kiln.autocast("cpu"):
            return NF.cross_entropy(checkpoint(net, x, use_reentrant=reentrant) if again else net(x), y)

    assert all_same(gradients(net, loss(False)), gradients(net, loss(True)))


def test_functions_of_ones_own() -> None:
    seen: list[Any] = []

    class Scaled(kiln.autograd.Function):
        @staticmethod
        @kiln.amp.custom_fwd(device_type="cpu", cast_inputs=kiln.float32)
        def forward(ctx: Any, a: Any, more: Any) -> Any:
            seen.append((a.dtype, more[0].dtype, kiln.is_autocast_enabled("cpu")))
            return a * 2

        @staticmethod
        @kiln.amp.custom_bwd(device_type="cpu")
        def backward(ctx: Any, grad: Any) -> Any:
            seen.append(kiln.is_autocast_enabled("cpu"))
            return grad * 2, None

    class Inside(Scaled):
        @staticmethod
        @kiln.amp.custom_fwd(device_type="cpu")
        def forward(ctx: Any, a: Any, more: Any) -> Any:
            seen.append((a.dtype, kiln.is_autocast_enabled("cpu")))
            return a @ a

    a = kiln.ones(2, 2, dtype=BF16, requires_grad=True)
    with kiln.autocast("cpu"):
        y, z = Scaled.apply(a, [a]), Inside.apply(a.float(), [])
    assert y.dtype is kiln.float32 and z.dtype is BF16
    (y.sum() + z.float().sum()).backward()
    assert a.grad is not None and a.grad.dtype is BF16
    assert seen == [(kiln.float32, kiln.float32, False), (kiln.float32, True), True, False]
    assert Scaled.apply(a, [a]).dtype is BF16  # outside nothing is cast
    assert kiln.cuda.amp.custom_fwd(lambda ctx, a: a.dtype, cast_inputs=kiln.float32)(Inside, a) is BF16


# ----------------------------------------------------------------------------------------------------- captures


def test_a_training_step_compiled_is_eager() -> None:
    """The region inside of the compiled function, or around its call."""
    (x, y), found = batch(), []
    for how in ("eager", "inside", "around"):
        net = model()
        optimiser = kiln.optim.AdamW(net.parameters(), lr=0.1)

        def loss(x: Any, y: Any, net: Any = net) -> Any:
            return NF.cross_entropy(net(x), y)

        run = kiln.compile(loss, fullgraph=True) if how == "around" else loss

        def step(x: Any, y: Any, net: Any = net, run: Any = run, optimiser: Any = optimiser) -> Any:
            with kiln.autocast("cpu", dtype=BF16):
                out = run(x, y)
            optimiser.zero_grad()
            out.backward()
            optimiser.step()
            return out.detach()

        whole = kiln.compile(step, fullgraph=True) if how == "inside" else step
        losses = [whole(x, y) for _ in range(3)]
        found.append([*losses, *[p.detach() for p in net.parameters()]])
    assert all_same(found[0], found[1]) and all_same(found[0], found[2])


def test_captures_are_told_apart_by_the_mode() -> None:
    w, x = kiln.randn(4, 4, requires_grad=True), kiln.randn(3, 4)

    def product(x: Any) -> Any:
        return x @ w if kiln.is_autocast_enabled("cpu") else x @ w * 2

    compiled = kiln.compile(product, fullgraph=True)
    for _ in range(2):
        assert same(compiled(x), x @ w * 2)
        for dtype in (BF16, kiln.float16):
            with kiln.autocast("cpu", dtype=dtype):
                assert compiled(x).dtype is dtype and same(compiled(x), x @ w)
    assert len(compiled.log) == 3 and "autocast" in compiled.log[1]


def inside(x: Any, w: Any) -> Any:
    with kiln.autocast("cpu"):
        y = x @ w
    return y @ y.T


def branches(x: Any, w: Any) -> Any:
    if x.sum() > 0:
        with kiln.autocast("cpu"):
            y = x @ w
    else:
        y = ((x - 1) @ w).to(kiln.get_autocast_dtype("cpu"))
    while y.float().sum() > 1:
        with kiln.autocast("cpu", dtype=kiln.float16):
            y = (y.float() @ w).to(kiln.bfloat16) * 0.1
    return y


@kiln.autocast("cpu", dtype=kiln.float16)
def whole(x: Any, w: Any) -> Any:
    return (x @ w).softmax(-1)


@pytest.mark.parametrize("function", [inside, branches, whole])
@pytest.mark.parametrize("door", ["compile", "script", "trace"])
def test_regions_in_captured_functions(function: Any, door: str) -> None:
    kiln.manual_seed(4)
    x, w = kiln.rand(3, 4), kiln.rand(4, 4)
    if door == "trace" and function is branches:
        return  # asks about data
    doors: dict[str, Any] = {
        "compile": lambda: kiln.compile(function, fullgraph=True),
        "script": lambda: jit.script(function),
        "trace": lambda: jit.trace(function, (x, w)),
    }
    captured = doors[door]()
    for a in (x, -x, x) if function is branches else (x, x):
        assert same(captured(a, w), function(a, w))


def left_on(x: Any) -> Any:
    kiln.autocast("cpu").__enter__()
    return x @ x


def switched(x: Any) -> Any:
    kiln.set_autocast_enabled("cpu", True)
    return x @ x


def test_a_mode_that_stays_is_refused() -> None:
    x = kiln.ones(2, 2)
    with kiln.autocast("cpu", enabled=False):
        with pytest.raises(kiln.CaptureError, match="autocast"):
            kiln.compile(left_on, fullgraph=True)(x)
        casting.WEIGHTS.depth -= 1
    with pytest.raises(kiln.CaptureError, match=r"set_autocast_enabled\(\) inside"):
        kiln.compile(switched, fullgraph=True)(x)


def test_transforms() -> None:
    w, x = kiln.randn(4, 4, requires_grad=True), kiln.randn(3, 4)

    def f(x: Any) -> Any:
        with kiln.autocast("cpu"):
            return x @ w

    with kiln.autocast("cpu"):
        assert same(kiln.vmap(lambda row: row @ w)(x), x @ w)
        out, tangent = kiln.func.jvp(lambda x: x @ w, (x,), (x,))
        assert same(out, x @ w) and same(tangent, x @ w)
        assert kiln.func.grad(lambda x: (x @ w).float().sum())(x).dtype is kiln.float32
    assert same(kiln.vmap(f)(x), f(x)) and kiln.func.jacrev(f)(x).dtype is kiln.float32


# ------------------------------------------------------------------------------------------------ scaled gradients


def parameters(*values: Sequence[float]) -> list[Any]:
    return [kiln.tensor(list(v), requires_grad=True) for v in values]


OPTIMISERS: dict[str, Any] = {
    "SGD": {"lr": 0.1, "momentum": 0.9}, "Adam": {}, "AdamW": {}, "RMSprop": {}, "Adagrad": {}, "Adadelta": {},
    "Adamax": {}, "NAdam": {}, "RAdam": {}, "Rprop": {}, "ASGD": {},
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIMISERS)
def test_scaled_steps_are_plain_steps(name: str) -> None:
    found = []
    for enabled in (True, False):
        ps = parameters([1.0, -2.0, 0.5], [3.0])
        optimiser = getattr(kiln.optim, name)(ps, **OPTIMISERS[name])
        scaler = kiln.amp.GradScaler("cpu", enabled=enabled)
        for _ in range(3):
            optimiser.zero_grad()
            scaler.scale((ps[0] * ps[0]).sum() + ps[1].exp().sum()).backward()
            scaler.step(optimiser)
            scaler.update()
        found.append([p.detach() for p in ps])
    assert all_same(*found)


def turn(scaler: Any, optimiser: Any, p: Any, factor: float = 1.0) -> None:
    optimiser.zero_grad()
    scaler.scale((p * factor).sum()).backward()
    scaler.step(optimiser)
    scaler.update()


@pytest.mark.parametrize("bad", [float("inf"), float("-inf"), float("nan")])
def test_a_bad_step_is_left_out_and_the_scale_follows(bad: float) -> None:
    (p,) = parameters([1.0, 2.0])
    optimiser = kiln.optim.SGD([p], lr=1.0)
    scaler = kiln.amp.GradScaler("cpu", init_scale=8.0, growth_factor=4.0, backoff_factor=0.25, growth_interval=2)
    assert scaler.get_scale() == 8.0
    turn(scaler, optimiser, p)
    assert p.tolist() == [0.0, 1.0] and scaler.get_scale() == 8.0 and scaler._get_growth_tracker() == 1
    turn(scaler, optimiser, p, bad)
    assert p.tolist() == [0.0, 1.0] and scaler.get_scale() == 2.0 and scaler._get_growth_tracker() == 0
    turn(scaler, optimiser, p)
    turn(scaler, optimiser, p)
    assert scaler.get_scale() == 8.0 and scaler._get_growth_tracker() == 0
    for _ in range(200):
        turn(scaler, optimiser, p, 1e-30)
    largest = scaler.get_scale()
    assert largest > 1e37 and largest < float("inf")


def test_gradients_are_unscaled_in_place() -> None:
    p, q = parameters([1.0, 2.0], [1.0])
    r = kiln.ones(4, 3, dtype=BF16).t().detach().requires_grad_()  # not contiguous
    optimiser = kiln.optim.SGD([p, q, r], lr=1.0)
    scaler = kiln.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale([(p * 3).sum() + (r * 5).sum(), ((q * 7).sum(),)])[0].backward()
    r.grad = r.grad.t().contiguous().t()
    assert p.grad is not None
    kept = p.grad
    scaler.unscale_(optimiser)
    assert p.grad is kept and kept.tolist() == [3.0, 3.0] and q.grad is None
    assert r.grad.dtype is BF16 and set(r.grad.flatten().tolist()) == {5.0}
    nn.utils.clip_grad_norm_([p], 1.0)
    scaler.step(optimiser)
    scaler.update(16.0)
    assert scaler.get_scale() == 16.0
    scaler.update(kiln.tensor([4.0]))
    assert scaler.get_scale() == 4.0


def test_several_optimisers() -> None:
    p, q = parameters([1.0], [1.0])
    first, second = kiln.optim.SGD([p], lr=1.0), kiln.optim.SGD([q], lr=1.0)
    scaler = kiln.amp.GradScaler("cpu", init_scale=2.0)
    scaler.scale(p.sum() + (q * float("inf")).sum()).backward()
    scaler.step(first)
    scaler.step(second)
    scaler.update()
    assert (p.item(), q.item(), scaler.get_scale()) == (0.0, 1.0, 1.0)


def test_wrong_orders_are_refused() -> None:
    (p,) = parameters([1.0])
    optimiser = kiln.optim.SGD([p], lr=1.0)
    scaler = kiln.amp.GradScaler("cpu")
    for name, call in (("step", scaler.step), ("unscale_", scaler.unscale_), ("update", lambda _: scaler.update())):
        with pytest.raises(kiln.InvalidValueError, match=rf"{name}: {name}\(\) was called before scale"):
            call(optimiser)
    scaler.scale(p.sum())
    with pytest.raises(kiln.InvalidValueError, match="has a gradient"):
        scaler.step(optimiser)
    scaler = kiln.amp.GradScaler("cpu")
    scaler.scale(p.sum()).backward()
    with pytest.raises(kiln.InvalidValueError, match="no gradients were looked at"):
        scaler.update()
    with pytest.raises(kiln.InvalidValueError, match="closures"):
        scaler.step(optimiser, closure=lambda: 0)
    scaler.unscale_(optimiser)
    with pytest.raises(kiln.InvalidValueError, match=r"unscale_\(\) was called already"):
        scaler.unscale_(optimiser)
    with pytest.raises(kiln.InvalidValueError, match="not over"):
        pickle.dumps(scaler)
    scaler.step(optimiser)
    for call in (scaler.step, scaler.unscale_):
        with pytest.raises(kiln.InvalidValueError, match=r"step\(\) was called since"):
            call(optimiser)
    half = kiln.ones(1, dtype=kiln.float16, requires_grad=True)
    scaler.scale(half.float().sum()).backward()
    with pytest.raises(kiln.InvalidValueError, match="float16 gradients"):
        scaler.unscale_(kiln.optim.SGD([half], lr=1.0))
    for options in ({"growth_factor": 1.0}, {"backoff_factor": 1.0}):
        with pytest.raises(kiln.InvalidValueError, match="growth_factor must"):
            kiln.amp.GradScaler("cpu", **options)
    with pytest.raises(kiln.InvalidValueError, match="xla"):
        kiln.amp.GradScaler("xla")


def test_state_is_kept() -> None:
    (p,) = parameters([1.0])
    optimiser, scaler = kiln.optim.SGD([p], lr=1.0), kiln.amp.GradScaler("cpu", init_scale=4.0, growth_interval=3)
    turn(scaler, optimiser, p)
    turn(scaler, optimiser, p, float("nan"))
    turn(scaler, optimiser, p)
    state = scaler.state_dict()
    assert state == {
        "scale": 2.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 3, "_growth_tracker": 1
    }  # fmt: skip
    fresh = kiln.amp.GradScaler("cpu")
    fresh.load_state_dict(state)
    for other in (fresh, pickle.loads(pickle.dumps(scaler)), copy.deepcopy(scaler)):
        turn(other, optimiser, p)
        turn(other, optimiser, p)
        assert other.get_scale() == 4.0
    scaler.load_state_dict({**state, "scale": 32.0})
    assert scaler.get_scale() == 32.0
    scaler.set_growth_factor(3.0)
    scaler.set_backoff_factor(0.1)
    scaler.set_growth_interval(7)
    assert (scaler.get_growth_factor(), scaler.get_backoff_factor(), scaler.get_growth_interval()) == (3.0, 0.1, 7)
    with pytest.raises(kiln.InvalidValueError, match="empty"):
        scaler.load_state_dict({})


def test_switched_off() -> None:
    with pytest.warns(UserWarning, match="there is none"):
        scaler = kiln.amp.GradScaler()
    (p,) = parameters([1.0])
    optimiser = kiln.optim.SGD([p], lr=1.0)
    scaler.scale(p.sum()).backward()
    scaler.unscale_(optimiser)
    scaler.step(optimiser)
    scaler.update()
    assert p.tolist() == [0.0] and not scaler.is_enabled() and scaler.get_scale() == 1.0 and scaler.state_dict() == {}
    scaler.load_state_dict({})


def test_float16_with_a_scaler_trains_compiled_as_eager() -> None:
    """The loss compiled, or the whole step, in which one batch overflows."""
    (x, y), found = batch(), []
    for how in ("eager", "loss", "step"):
        net = model()
        optimiser, scaler = kiln.optim.SGD(net.parameters(), lr=0.1), kiln.amp.GradScaler("cpu", init_scale=64.0)

        def loss(x: Any, y: Any, net: Any = net) -> Any:
            with kiln.autocast("cpu", dtype=kiln.float16):
                return NF.cross_entropy(net(x), y)

        run = kiln.compile(loss, fullgraph=True) if how == "loss" else loss

        def step(x: Any, y: Any, run: Any = run, optimiser: Any = optimiser, scaler: Any = scaler) -> Any:
            optimiser.zero_grad()
            out = run(x, y)
            scaler.scale(out).backward()
            scaler.step(optimiser)
            scaler.update()
            return out.detach()

        whole = kiln.compile(step) if how == "step" else step
        losses = [whole(x * 1e6 if k == 2 else x, y) for k in range(6)]
        assert losses[-1] < losses[0] and scaler.get_scale() == 32.0
        found.append([*losses, *[p.detach() for p in net.parameters()]])
        if how == "step":
            assert whole.report().captured <= 4 and not whole.report().eager
    assert all_same(found[0], found[1]) and all_same(found[0], found[2])
