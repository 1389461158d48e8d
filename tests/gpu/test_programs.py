"""Small programs that PyTorch's users write for a GPU: results, where they are, and errors are PyTorch's."""

from __future__ import annotations

import copy
import io
import os
import pickle
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import kiln
from kiln import nn
from kiln.errors import DeviceError, GradError, InvalidValueError, KilnIndexError
from tests.gpu.conftest import Gpu

pytestmark = pytest.mark.usefixtures("gpu")


def told(x: Any) -> Any:
    """Tensors as where they are and what they hold."""
    if isinstance(x, kiln.Tensor):
        return f"{x.device}", x.detach().cpu().tolist()
    if isinstance(x, (tuple, list)):
        return [told(y) for y in x]
    if isinstance(x, dict):
        return {k: told(y) for k, y in x.items()}
    return str(x) if isinstance(x, kiln.device) else x


def cpu(*values: float) -> Any:
    return kiln.tensor(values, dtype=kiln.float32)


def gpu_(*values: float) -> Any:
    return kiln.tensor(values, dtype=kiln.float32, device="cuda")


def number(value: float, device: str = "cpu") -> Any:
    return kiln.tensor(value, device=device)


def written(x: Any, index: Any, value: Any) -> Any:
    x[index] = value
    return x


def saved(x: Any, **options: Any) -> Any:
    file = io.BytesIO()
    kiln.save(x, file)
    file.seek(0)
    return kiln.load(file, **options)


def at(*where: int, device: str = "cpu") -> Any:
    return kiln.tensor(where, device=device)


def mask(device: str = "cpu") -> Any:
    return kiln.tensor([True, False, True], device=device)


G = "cuda:0"
ONE, TWO = (G, [1.0, 2.0]), (G, [2.0, 3.0])
APART = (DeviceError, "operands are on c.* and on c")

# ------------------------------------------------------------------------------------ operands of several devices

PROGRAMS: dict[str, tuple[Callable[[], Any], Any]] = {
    "two devices": (lambda: cpu(1, 2) + gpu_(1, 2), APART),
    "two GPUs": (lambda: cpu(1, 2).to("cuda:1") + gpu_(1, 2), APART),
    "a number of the CPU": (lambda: number(1.0) + gpu_(1, 2), TWO),
    "a number of the GPU": (lambda: number(1.0, "cuda") + cpu(1, 2), APART),
    "a number into the CPU": (lambda: cpu(1, 2).add_(number(1.0, "cuda")), APART),
    "a number into the GPU": (lambda: gpu_(1, 2).add_(number(1.0)), TWO),
    "numbers of both": (lambda: number(1.0) + number(1.0, "cuda"), (G, 2.0)),
    "an array of the host": (lambda: gpu_(1, 2) + np.ones(2, np.float32), APART),
    "a NumPy number": (lambda: np.float32(1) + gpu_(1, 2), TWO),
    "where, sides": (lambda: kiln.where(gpu_(1, 2) > 1, number(3.0), number(1.0)), (G, [1.0, 3.0])),
    "where, condition": (lambda: kiln.where(number(True), gpu_(1, 2), gpu_(2, 3)), ONE),
    "where, apart": (lambda: kiln.where(cpu(1, 2) > 1, gpu_(1, 2), 0.0), APART),
    "clamp": (lambda: gpu_(0, 9).clamp(number(1.0), number(2.0)), ONE),
    "masked_fill": (lambda: gpu_(1, 9).masked_fill(gpu_(1, 9) > 2, number(2.0)), ONE),
    "masked_fill, mask": (lambda: gpu_(1, 2).masked_fill(cpu(1, 2) > 1, 0.0), (DeviceError, "^masked_fill: ")),
    "stack": (lambda: kiln.stack([cpu(1), gpu_(1)]), (DeviceError, "^stack: ")),
    "cat": (lambda: kiln.cat([cpu(1), gpu_(1)]), (DeviceError, "^cat: ")),
    "equal": (lambda: kiln.equal(cpu(1), gpu_(1)), APART),
    "a layer": (lambda: nn.Linear(2, 1).cuda()(cpu(1, 2).reshape(1, 2)), APART),
    # ---------------------------------------------------------------------------------------------------- indices
    "index of the CPU": (lambda: gpu_(0, 1, 2)[at(1, -1)], ONE),
    "mask of the CPU": (lambda: gpu_(1, 0, 2)[mask()], ONE),
    "indices of both": (lambda: gpu_(1, 2).reshape(1, 2)[at(0, 0), at(0, 1, device="cuda")], ONE),
    "index of an array": (lambda: gpu_(0, 1, 2)[np.array([1, 2])], ONE),
    "index of the GPU": (lambda: cpu(0, 1)[at(1, device="cuda")], (DeviceError, "^index: ")),
    "mask of the GPU": (lambda: cpu(1, 0, 2)[mask("cuda")], (DeviceError, "^index: ")),
    "one index of the GPU": (lambda: cpu(0, 1)[number(1, "cuda")], ("cpu", 1.0)),
    "one index of the CPU": (lambda: gpu_(0, 1)[number(1)], (G, 1.0)),
    "as a list's index": (lambda: [5, 6][number(1, "cuda")], 6),
    "write at the CPU's": (lambda: written(gpu_(0, 1, 2), at(0), 1.0)[:2], (G, [1.0, 1.0])),
    "write at the GPU's": (lambda: written(gpu_(0, 9), at(0, 1, device="cuda"), gpu_(1, 2)), ONE),
    "write twice": (lambda: written(gpu_(0, 2), at(0, 0, device="cuda"), gpu_(5, 1)), ONE),
    "write a number": (lambda: written(gpu_(0, 2), at(0), number(1.0)), ONE),
    "write one element": (lambda: written(gpu_(0, 2), at(0, device="cuda"), cpu(1)), ONE),
    "write the GPU's number": (lambda: written(cpu(0, 2), at(0), number(1.0, "cuda")), ("cpu", [1.0, 2.0])),
    "write the CPU's elements": (lambda: written(gpu_(0, 0), at(0, 1), cpu(1, 2)), (DeviceError, "^index_put_: ")),
    "write at a mask": (lambda: written(gpu_(0, 2, 0), mask(), 1.0), (G, [1.0, 2.0, 1.0])),
    "write a number at a mask": (lambda: written(gpu_(0, 2), gpu_(1, 0) > 0, number(1.0)), ONE),
    "write out of range": (lambda: written(gpu_(0, 2), at(0, 7, device="cuda"), 1.0), (KilnIndexError, "index 7")),
    "write out of range below": (lambda: written(gpu_(0, 2), at(-3, device="cuda"), 1.0), (KilnIndexError, "-3")),
    "write nowhere": (lambda: written(gpu_(1, 2), kiln.zeros(0, dtype=kiln.int64, device="cuda"), 5.0), ONE),
    "write to a slice": (lambda: written(gpu_(1, 9), slice(1, 2), cpu(2)), ONE),
    "write back": (lambda: written(cpu(1, 9), slice(1, 2), gpu_(2)), ("cpu", [1.0, 2.0])),
    "copy_": (lambda: gpu_(0, 0).copy_(kiln.tensor([1, 2])), ONE),
    "copy_ to a view": (lambda: written(kiln.zeros(2, 1, device="cuda").t(), 0, cpu(1, 2))[0], ONE),
    # --------------------------------------------------------------------------------------------------- transfers
    "to, everything": (
        lambda: [
            cpu(1).to(*a, **k).device
            for a, k in (
                (("cuda",), {}), ((kiln.device("cuda", 1),), {}), ((1,), {}), ((gpu_(1),), {}),
                ((), {"device": "cuda"}), (("cuda", kiln.float32, True, True), {}), (("cuda", None), {}),
                ((None,), {}), ((), {"other": gpu_(1)}),
            )
        ],
        [G, "cuda:1", "cuda:1", G, G, G, G, "cpu", G],
    ),
    "to nowhere": (lambda: cpu(1).to("gpu"), (InvalidValueError, "unknown device 'gpu'")),
    "to a GPU that is not there": (lambda: cpu(1).to("cuda:99"), (DeviceError, "no GPU 99")),
    "to no number": (lambda: cpu(1).to("cuda:01"), (InvalidValueError, "is no device")),
    "cuda of the CPU": (lambda: nn.Linear(1, 1).cuda("cpu"), (InvalidValueError, "is no GPU")),
    "type by name": (
        lambda: [(x := cpu(1, 2).type("torch.cuda.FloatTensor")).type(), x, x.type("torch.DoubleTensor")],
        ["kiln.cuda.FloatTensor", ONE, ("cpu", [1.0, 2.0])],
    ),
    "data": (lambda: setattr(x := gpu_(0, 0).requires_grad_(), "data", gpu_(1, 2)) or x, ONE),
    "data moves": (
        lambda: setattr(x := cpu(1, 2).requires_grad_(), "data", x.data.cuda()) or (x, x.is_leaf),
        [ONE, True],
    ),
    "a transfer is an op": (lambda: [(y := cpu(1).requires_grad_().cuda()).requires_grad, y.is_leaf], [True, False]),
    "grad elsewhere": (lambda: setattr(cpu(1).requires_grad_(), "grad", gpu_(1)), (DeviceError, "grad")),
    "start of backward": (lambda: gpu_(1).requires_grad_().backward(cpu(1)), (DeviceError, "^backward: ")),
    "tangent": (lambda: kiln.func.jvp(lambda x: x, (gpu_(1),), (cpu(1),)), (DeviceError, "^jvp: ")),
    "deepcopy": (
        lambda: [y := copy.deepcopy(x := gpu_(1, 2).requires_grad_()), y.requires_grad, y is x],
        [ONE, True, False],
    ),
    "deepcopy of a result": (lambda: copy.deepcopy(gpu_(1).requires_grad_() * 2), (GradError, "only leaves")),
    "deepcopy of a module": (lambda: copy.deepcopy(nn.Linear(1, 1).cuda()).weight.device, G),
    "pickle": (lambda: pickle.loads(pickle.dumps([gpu_(1, 2), kiln.device("cuda:1"), kiln.Generator("cuda").device])),
               [ONE, "cuda:1", G]),
    "numpy": (lambda: gpu_(1).numpy(), (DeviceError, "cpu()")),
    "printing": (lambda: [repr(gpu_(1)), str(kiln.device("cuda")), f"{number(1.5, 'cuda'):.2f}"],
                 ["tensor([1.], device='cuda:0')", G, "1.50"]),
    # ------------------------------------------------------------------------------------------------------- files
    "saved": (lambda: saved([gpu_(1, 2), cpu(1).to("cuda:1"), cpu(1)]), [ONE, ("cuda:1", [1.0]), ("cpu", [1.0])]),
    "map_location": (
        lambda: [
            saved(cpu(1).to("cuda:1"), map_location=m).device
            for m in ("cpu", "cuda", kiln.device("cuda:0"), {"cuda:1": "cpu"}, {"cpu": "cuda"}, lambda t, _: t.cuda(),
                      lambda *_: None)
        ],
        ["cpu", G, G, "cpu", "cuda:1", G, "cuda:1"],
    ),
    "map_location that is not there": (lambda: saved(gpu_(1), map_location="cuda:99"), (DeviceError, "no GPU 99")),
    "state of a module": (
        lambda: [(a := nn.Linear(1, 1)).load_state_dict(nn.Linear(1, 1).cuda().state_dict()) and a.weight.device,
                 nn.Linear(1, 1).cuda().load_state_dict(nn.Linear(1, 1).state_dict()) and 0],
        ["cpu", 0],
    ),
    # ----------------------------------------------------------------------------------------------------- modules
    "module moves": (
        lambda: [(m := nn.BatchNorm1d(1)), p := m.weight, m.half().to("cuda") is m, p is m.weight, p.dtype, p.device,
                 m.running_mean.device, m.num_batches_tracked.dtype][2:],
        [True, True, kiln.float16, G, G, kiln.int64],
    ),
    "tied": (
        lambda: [(m := nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))), setattr(m[1], "weight", m[0].weight), m.cuda(),
                 m[0].weight is m[1].weight][3],
        True,
    ),
    "lazy": (lambda: [(m := nn.LazyLinear(1).cuda()).weight.device, m.to_empty(device="cpu").bias.device], [G, "cpu"]),
    "to_empty": (lambda: nn.Linear(2, 1, bias=False).to_empty(device="cuda").weight[0], (G, [0.0, 0.0])),
    "the default device": (
        lambda: [kiln.device("cuda").__enter__(), nn.Linear(1, 1).weight.device, kiln.rand(1).device,
                 kiln.device("cuda").__exit__(None, None, None), kiln.rand(1).device],
        [G, G, G, None, "cpu"],
    ),
    # ---------------------------------------------------------------------------------------------------- transforms
    "vmap to": (lambda: kiln.vmap(lambda r: r.cuda())(cpu(1, 2)), ONE),
    "vmap to where others are": (
        lambda: kiln.vmap(lambda r, s: r.to(s.device) + s, (0, None))(cpu(0, 1), gpu_(1))[:, 0],
        ONE,
    ),
    "vmap from": (lambda: kiln.vmap(lambda r: r.cpu() + 1)(gpu_(0, 1)), ("cpu", [1.0, 2.0])),
    "vmap apart": (lambda: kiln.vmap(lambda r, s: r + s)(cpu(1, 2).reshape(1, 2), gpu_(1, 2).reshape(1, 2)), APART),
    "vmap writes": (
        lambda: kiln.vmap(lambda r, v: written(r.clone(), 0, v))(gpu_(0, 0).reshape(2, 1), gpu_(1, 2))[:, 0],
        ONE,
    ),
    "jvp": (lambda: kiln.func.jvp(lambda x: x.cuda() * 2, (cpu(0.5, 1),), (cpu(1, 1.5),)), [ONE, TWO]),
    "grad": (lambda: kiln.func.grad(lambda x: (x.cuda() * 2).sum())(cpu(1, 2)), ("cpu", [2.0, 2.0])),
    "vjp": (lambda: kiln.func.vjp(lambda x: x.cpu() * 2, gpu_(1))[1](cpu(1, ))[0], (G, [2.0])),
    "vmap of grad": (lambda: kiln.vmap(kiln.func.grad(lambda x: x.cuda() * 2))(cpu(1, 2)), ("cpu", [2.0, 2.0])),
    # ------------------------------------------------------------------------------------------------------- the rest
    "threads have their own GPU": (
        lambda: _in_a_thread(lambda: [kiln.cuda.set_device(1), gpu_(1).device][1]),
        ["cuda:1", G],
    ),
    "out of memory": (lambda: kiln.zeros(1 << 40, device="cuda"), (kiln.cuda.OutOfMemoryError, "out of memory")),
    "names": (lambda: [__import__("kiln.cuda.amp").cuda.amp.GradScaler(enabled=False).is_enabled()], [False]),
    "clip across devices": (
        lambda: [(p := [cpu(1.0).requires_grad_(), gpu_(1.0).requires_grad_()]), sum(3 * x.cpu() for x in p).backward(),
                 nn.utils.clip_grad_norm_(p, 0.0).device, [x.grad for x in p]][2:],
        ["cpu", [("cpu", [0.0]), (G, [0.0])]],
    ),
}  # fmt: skip


OF_TWO = {"two GPUs", "to, everything", "saved", "map_location", "threads have their own GPU"}


def need_two(wanted: bool = True) -> None:
    if wanted and kiln.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")


def _in_a_thread(use: Callable[[], Any]) -> list[Any]:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(use()))
    thread.start()
    thread.join()
    return [*found, gpu_(1).device]


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(name: str) -> None:
    need_two(name in OF_TWO)
    run, wanted = PROGRAMS[name]
    if isinstance(wanted, tuple) and isinstance(wanted[0], type):
        with pytest.raises(wanted[0], match=wanted[1]) as caught:
            run()
        assert caught.value.loc is not None and caught.value.loc.file == __file__
        return
    assert told(run()) == wanted


def test_after_out_of_memory_all_goes_on() -> None:
    kept = gpu_(0, 1)
    with pytest.raises(RuntimeError):
        kiln.zeros(1 << 40, device="cuda")
    assert told(kept + 1) == ONE


# ------------------------------------------------------------------------------------------------ compiled functions


def moves_in_one_branch(x: Any, y: Any) -> Any:
    if x.sum() > 0:
        x = x.cuda()
    return x * 2


def returns_from_one_branch(x: Any, y: Any) -> Any:
    if x.sum() > 0:
        return x.cuda() + y
    return y * 2


def leaves_another_tensor(x: Any, y: Any) -> Any:
    z = x if x.sum() > 0 else y
    return z, f"{z}"


def moves_in_turns(x: Any, y: Any) -> Any:
    k = kiln.tensor(3)
    while k > 0:
        x, y = y.to(x.device) + 1, (x.to(y.device) if x.sum() > 1 else y * 2)
        k = k - 1
    return x, y, k


def text_of_branches(x: Any, y: Any) -> Any:
    if x.sum() > 0:
        text = f"{y * 2}"
    else:
        text = f"{y + 1} on {y.device}"
    return text


def writes_across(x: Any, y: Any) -> Any:
    z = y.clone()
    z[kiln.tensor([0])] = x.sum()
    z.add_(x.cuda())
    return z


def made_on_the_current_gpu(x: Any, y: Any) -> Any:
    return x.cuda(), kiln.ones(1, device="cuda")


@pytest.mark.parametrize(
    "function",
    [
        moves_in_one_branch, returns_from_one_branch, leaves_another_tensor, moves_in_turns, text_of_branches,
        writes_across, made_on_the_current_gpu,
    ],
)  # fmt: skip
def test_compiled_functions_are_where_eager_ones_are(function: Callable[..., Any]) -> None:
    need_two(function is made_on_the_current_gpu)
    compiled = kiln.compile(function)
    for index in (0, 1, 0):
        with kiln.cuda.device(index if function is made_on_the_current_gpu else 0):
            for sign in (1, -1, 1):
                x, y = cpu(sign, sign), gpu_(1, 2)
                assert told(compiled(x, y)) == told(function(x, y))


def test_branches_of_cond_agree_on_a_device() -> None:
    with pytest.raises(DeviceError, match=r"^cond: false_fn returns a tensor.* on cpu, where one on cuda:0"):
        kiln.compile(lambda x: kiln.cond(x.sum() > 0, lambda x: x.cuda(), lambda x: x, (x,)))(cpu(1))


@pytest.mark.parametrize("use", ["synchronize", "memory_allocated", "current_stream", "empty_cache"])
def test_what_is_about_now_is_not_compiled(use: str) -> None:
    def f(x: Any) -> Any:
        getattr(kiln.cuda, use)()
        return x + 1

    with pytest.warns(kiln.errors.CaptureWarning, match=r"kiln\.cuda\.\w+\(\) tells or changes"):
        assert told(kiln.compile(f)(gpu_(0, 1))) == ONE


# --------------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", [None, kiln.float64])
def test_an_optimiser_may_come_before_the_move(dtype: Any, compiled: bool) -> None:
    """As in PyTorch, whose optimisers make their state in the first step."""

    def trained(late: bool) -> Any:
        w = kiln.tensor([1.0, -2.0]).requires_grad_()
        first = [] if late else [kiln.optim.SGD([w], lr=0.1, momentum=0.9)]
        w.data = w.data.to("cuda", dtype)
        optimiser = first[0] if first else kiln.optim.SGD([w], lr=0.1, momentum=0.9)

        def step() -> None:
            optimiser.zero_grad()
            (w * w).sum().backward()
            optimiser.step()

        run = kiln.compile(step, fullgraph=True) if compiled else step
        for _ in range(3):
            run()
        held = optimiser.state[w]["momentum_buffer"]
        assert held.device == w.device and held.dtype is w.dtype
        return told([w, held])

    assert trained(late=False) == trained(late=True)


def test_state_follows_a_parameter_that_moves_later() -> None:
    def trained(moves: bool) -> Any:
        w = kiln.tensor([1.0, -2.0]).requires_grad_()
        optimiser = kiln.optim.SGD([w], lr=0.1, momentum=0.9)
        for k in range(3):
            if moves and k == 1:
                w.data = w.data.cuda()
            optimiser.zero_grad()
            (w * w).sum().backward()
            optimiser.step()
        return w.tolist()

    assert trained(True) == trained(False)


def test_the_state_of_an_optimiser_loads_on_another_device() -> None:
    there, here = gpu_(1, 2).requires_grad_(), cpu(1, 2).requires_grad_()
    optimisers = [kiln.optim.SGD([p], lr=0.5, momentum=0.5) for p in (there, here)]
    (there * 2).sum().backward()
    optimisers[0].step()
    optimisers[1].load_state_dict(optimisers[0].state_dict())
    assert told(optimisers[1].state[here]["momentum_buffer"]) == ("cpu", [2.0, 2.0])


class _Wrong(kiln.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return g.cpu()


def test_gradients_of_functions_are_where_arguments_are() -> None:
    x = gpu_(1, 2).requires_grad_()
    with pytest.raises(DeviceError, match=r"^_Wrong: backward returned a gradient on cpu for argument 0"):
        _Wrong.apply(x).sum().backward()


def test_forked_random_numbers() -> None:
    need_two()
    kiln.manual_seed(1)
    wanted = [kiln.rand(2, device=d).tolist() for d in ("cpu", "cuda:0", "cuda:1")]
    kiln.manual_seed(1)
    with kiln.random.fork_rng():
        kiln.rand(3, device="cuda:0"), kiln.rand(3, device="cuda:1"), kiln.rand(3)
    assert [kiln.rand(2, device=d).tolist() for d in ("cpu", "cuda:0", "cuda:1")] == wanted
    with kiln.random.fork_rng(devices=[1]):
        other = kiln.rand(1, device="cuda:0").tolist()
    assert kiln.rand(1, device="cuda:0").tolist() != other


# -------------------------------------------------------------------------------------------------------- processes


class _Samples(kiln.utils.data.Dataset):
    def __init__(self, held: Any = None) -> None:
        self.held = held

    def __len__(self) -> int:
        return 2

    def __getitem__(self, k: int) -> Any:
        return kiln.full((1,), float(k + 1)) if self.held is None else self.held + k


def test_loaders_have_workers_after_a_gpu_was_used() -> None:
    gpu_(1, 2).mul_(2)
    kiln.rand(1, device="cuda")
    loader = kiln.utils.data.DataLoader(_Samples(), batch_size=2, num_workers=1)
    assert told([x[:, 0].cuda() for x in loader]) == [ONE]
    loader = kiln.utils.data.DataLoader(_Samples(gpu_(1)), batch_size=2, num_workers=1)
    with pytest.raises(DeviceError, match="CUDA was used before this process was forked"):
        list(loader)


def test_loaders_of_tensors_of_a_gpu() -> None:
    data = kiln.utils.data.TensorDataset(gpu_(1, 2))
    assert told([x for (x,) in kiln.utils.data.DataLoader(data, batch_size=2)]) == [ONE]


def forked(use: Callable[[], Any]) -> str:
    """What a forked child says of it."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(write, repr(told(use())).encode())
        except DeviceError as error:
            os.write(write, error.message.encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(child, 0)
    return said


def test_a_forked_child_has_no_gpu(gpu: Gpu) -> None:
    x = gpu_(1, 2)
    on_cpu = kiln.compile(lambda x: x + 1)
    assert told(on_cpu(cpu(1))) == ("cpu", [2.0])
    uses = (lambda: x + 1, lambda: x.cpu(), lambda: gpu_(1), lambda: kiln.rand(1, device="cuda"), lambda: repr(x))
    for use in uses:
        assert "used before this process was forked" in forked(use)
    assert forked(lambda: on_cpu(cpu(1))) == "('cpu', [2.0])"
    assert forked(lambda: [kiln.manual_seed(1) and 0, kiln.cuda.is_available(), x.shape[0]]) == "[0, False, 2]"


def test_other_libraries_find_the_memory() -> None:
    x = kiln.zeros(2, 3, device="cuda")
    shown = x.t().__cuda_array_interface__
    address = shown.pop("data")
    assert shown.pop("descr") == [("", "<f4")]
    assert shown == {"version": 3, "shape": (3, 2), "typestr": "<f4", "strides": (4, 12), "stream": 1}
    assert address == (x.data_ptr(), False)
    with kiln.cuda.stream(s := kiln.cuda.Stream()):
        inside = x[:0].__cuda_array_interface__
    assert (inside["stream"], inside["data"], inside["strides"]) == (s.cuda_stream, (0, False), None)
    assert not hasattr(x.cpu(), "__cuda_array_interface__")
    with pytest.raises(GradError, match="use detach"):
        x.requires_grad_().__cuda_array_interface__  # noqa: B018
