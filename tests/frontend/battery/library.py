"""Layers, hooks of modules, indexing, sorting, views of all kinds: the parts of the library in compiled functions."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import kiln
from kiln import nn
from kiln.nn import functional as F
from tests.frontend.battery.kit import Table, linear, vector

PROGRAMS = Table()
right, refused = PROGRAMS.right, PROGRAMS.refused


def grid(n: int, rows: int = 3, columns: int = 4, grad: bool = False) -> Any:
    return ((kiln.arange(float(rows * columns)).reshape(rows, columns) + n) * 0.7).sin().requires_grad_(grad)


# ------------------------------------------------------------------------------------------------- views


@right(captures=1)
def all_kinds_of_views_of_an_input(c: Any, see: Any) -> None:
    f = c(
        lambda x: [
            x.diagonal(),
            x.movedim(0, 1),
            x.narrow(1, 1, 2),
            x.select(0, 1),
            *x.chunk(2, 1),
            *x.split([1, 3], 1),
            *x.unbind(0),
            x.unflatten(1, (2, 2)),
            x[1:, ::2],
            x[..., None, 0],
            x.flatten(),
            x.swapaxes(0, 1)[0],
        ]
    )
    for n in range(3):
        x = grid(n)
        out = f(x)
        see(out)
        for k, y in enumerate(out):
            y.add_(float(k))
        see(x, out)


@right(captures=1)
def gradients_through_all_kinds_of_views(c: Any, see: Any) -> None:
    f = c(
        lambda x: (
            x.diagonal().exp().sum()
            + (x.unflatten(1, (2, 2))[:, 1] * 2).sum()
            + sum((a * k).sum() for k, a in enumerate(x.unbind(1)))
            + (x.chunk(2, 1)[1] * x.narrow(1, 0, 2)).sum()
        )
    )
    for n in range(3):
        x = grid(n, grad=True)
        f(x).backward()
        see(x)


@right(captures=1)
def writes_through_all_kinds_of_views(c: Any, see: Any) -> None:
    def f(x: Any) -> Any:
        x.diagonal().fill_(9.0)
        x.unflatten(1, (2, 2))[:, :, 1].mul_(2.0)
        x.unbind(1)[2].add_(x.select(1, 0))
        x.movedim(0, 1)[1].sub_(1.0)
        return x.sum(), x.diagonal()

    g = c(f)
    for n in range(3):
        x = grid(n)
        see(g(x), x)


@right(captures=1)
def writes_through_views_with_gradients(c: Any, see: Any) -> None:
    def f(x: Any, w: Any) -> Any:
        y = x * 1
        y.diagonal().mul_(w)
        y.unflatten(1, (2, 2))[:, :, 1].add_(w[0])
        y.unbind(0)[1].copy_(y[0].clone() * 2)
        return y

    g = c(f)
    for n in range(3):
        x, w = grid(n, grad=True), vector(1, 2, 3, grad=True)
        y = g(x, w)
        see(y)
        (y * y).sum().backward()
        see(x, w)


@refused()
def views_by_strides(c: Any, see: Any) -> None:
    see(c(lambda x: x.as_strided((2, 2), (4, 1), 1))(grid(0)))


@right()
def strided_views_of_inputs_with_other_strides(c: Any, see: Any) -> None:
    f = c(lambda x: (x.diagonal(), x.unsqueeze(0), x.flatten()))
    for n in range(2):
        base = grid(n, 4, 4)
        for x in (base, base.t(), base[1:, 1:], base[:3]):
            out = f(x)
            see(out)
            out[0].add_(1.0)
            see(base)


# ---------------------------------------------------------------------------------------------- indexing


@right(captures=1)
def indexing_by_tensors(c: Any, see: Any) -> None:
    f = c(lambda x, i: (x[i], x[:, i], x.index_select(0, i), x.gather(0, i.reshape(1, 2).expand(2, 2)), x[[0, 2]]))
    for n in range(3):
        see(f(grid(n), kiln.tensor([n % 3, 1])))


@right()
def indexing_out_of_range(c: Any, see: Any) -> None:
    def f(x: Any, i: Any) -> Any:
        x.add_(1.0)
        y = x[i]
        x.add_(1.0)
        return y

    g = c(f)
    for i in (0, 1, 5, 2, -1, -4):
        x = grid(0)
        see.attempt(g, x, kiln.tensor([i, 0]))
        see(x)


@right()
def checks_caught_between_writes(c: Any, see: Any) -> None:
    state = vector(0)

    def f(x: Any, i: Any) -> Any:
        state.add_(1.0)
        try:
            y = x[i]
        except kiln.KilnIndexError:
            y = x[0]
        state.mul_(2.0)
        return y

    g = c(f)
    for i in (0, 1, 5, 2, 7):
        see(g(grid(0), kiln.tensor([i])), state)


@right()
def checks_after_random_numbers(c: Any, see: Any) -> None:
    f = c(lambda x, i: x[i] + kiln.rand(4))
    for i in (0, 1, 5, 2, 7):
        see.attempt(f, grid(0), kiln.tensor([i]))
        see(kiln.default_generator.get_state())


@right()
def checks_in_a_backward_inside(c: Any, see: Any) -> None:
    w = grid(1, grad=True)

    def f(i: Any) -> Any:
        w.grad = None
        loss = (w[i] * w[i]).sum()
        loss.backward()
        return loss.detach()

    g = c(f)
    for i in (0, 1, 5, 2):
        see.attempt(g, kiln.tensor([i, 1]))
        see(w)


@right(captures=1)
def writes_by_index(c: Any, see: Any) -> None:
    def f(x: Any, i: Any, m: Any) -> Any:
        x[i] = 5.0
        x[:, 1].masked_fill_(m, 7.0)
        x.index_add_(0, i, kiln.ones(2, 4))
        x.index_put_((i, i), kiln.zeros(2), accumulate=False)
        x[x > 6.5] = -1.0
        return x.sum()

    g = c(f)
    for n in range(3):
        x = grid(n)
        see(g(x, kiln.tensor([0, 2 - n % 2]), kiln.tensor([True, False, n > 1])), x)


@right(captures=1)
def writes_by_index_with_gradients(c: Any, see: Any) -> None:
    def f(x: Any, i: Any, w: Any) -> Any:
        y = x.clone()
        y[i] = w
        y[:, 0] = y[:, 1].clone() * w[0]
        z = y.scatter(1, i.reshape(1, 2), w.reshape(1, 4)[:, :2])
        return z * y

    g = c(f)
    for n in range(3):
        x, w = grid(n, grad=True), vector(1, 2, 3, 4, grad=True)
        y = g(x, kiln.tensor([0, 2 - n % 2]), w)
        see(y)
        y.sum().backward()
        see(x, w)


@right()
def empty_and_lists_as_indices(c: Any, see: Any) -> None:
    f = c(lambda x, i: x[i])
    for i in ([0, 1], [1, 0], [2], (0, 1), [0, 1], [True, False, True], slice(1, None), 2, None, ...):
        see(f(grid(0), i))


@right(captures=2)
def sizes_that_depend_on_data(c: Any, see: Any) -> None:
    f = c(lambda x: x[x > 0])
    for n in (0, 0, 1, 0, 1):
        see(f(grid(n)))


@right(captures=2)
def nonzero(c: Any, see: Any) -> None:
    f = c(lambda x: (kiln.nonzero(x), kiln.nonzero(x, as_tuple=True)))
    for x in (vector(1, 0, 2), vector(0, 3, 4), vector(0, 0, 0), vector(1, 1, 0)):
        see(f(x))


@right(captures=2)
def distinct_elements(c: Any, see: Any) -> None:
    f = c(lambda x: kiln.unique(x, return_inverse=True, return_counts=True))
    for x in (vector(3, 1, 3), vector(2, 2, 1), vector(1, 2, 3), vector(5, 4, 5)):
        see(f(x))


@right(captures=2)
def equal_asks_for_data(c: Any, see: Any) -> None:
    f = c(lambda x, y: x * kiln.equal(x, y))
    for y in (grid(0), grid(1), grid(0), grid(2)):
        see(f(grid(0), y))


@right(captures=1)
def sorting(c: Any, see: Any) -> None:
    f = c(lambda x: (*kiln.sort(x, 1), *kiln.topk(x, 2), x.argsort(0), x.max(1), x.argmax()))
    for n in range(3):
        see(f(grid(n)))


@right(captures=1)
def sorting_with_gradients(c: Any, see: Any) -> None:
    f = c(lambda x: kiln.sort(x, 1)[0] * kiln.topk(x, 1)[0])
    for n in range(3):
        x = grid(n, grad=True)
        f(x).square().sum().backward()
        see(x)


@right()
def named_results_of_the_library(c: Any, see: Any) -> None:
    f = c(lambda x: x.max(1))
    for n in range(3):
        out = f(grid(n))
        see(out.values, out.indices, type(out).__name__)


@right()
def result_types_and_default_dtype(c: Any, see: Any) -> None:
    f = c(lambda x: (kiln.zeros(2), x / 2, kiln.tensor([1.5]), kiln.get_default_dtype() is kiln.float64))
    try:
        for d in (kiln.float32, kiln.float64, kiln.float32, kiln.float64):
            kiln.set_default_dtype(d)
            see(f(kiln.tensor([1, 2])))
    finally:
        kiln.set_default_dtype(kiln.float32)


@right()
def all_dtypes(c: Any, see: Any) -> None:
    f = c(lambda x: (x + 1, x * x, x.to(kiln.float32), x > 0, x[:1]))
    for _ in range(2):
        for d in (kiln.uint8, kiln.int8, kiln.int16, kiln.int32, kiln.float16, kiln.bfloat16, kiln.bool):
            x = kiln.tensor([0, 1, 100], dtype=d)
            see([(str(y.dtype), y.to(kiln.float64)) for y in f(x)])


# -------------------------------------------------------------------------------------------- random numbers


@right(captures=1)
def random_functions(c: Any, see: Any) -> None:
    f = c(
        lambda x: (
            kiln.randint(0, 10, (3,)),
            kiln.randperm(5),
            kiln.bernoulli(kiln.full((4,), 0.5)),
            kiln.normal(0.0, 1.0, (2,)),
            x.clone().uniform_(),
            x.clone().exponential_(),
            kiln.multinomial(kiln.tensor([0.2, 0.8]), 3, replacement=True),
        )
    )
    for n in range(3):
        see(f(vector(n, 1)), kiln.get_rng_state())


@refused()
def seed_from_the_system(c: Any, see: Any) -> None:
    before = kiln.get_rng_state()
    try:
        c(lambda: kiln.seed())()
    finally:
        kiln.set_rng_state(before)


@right(captures=1)
def dropout_functions(c: Any, see: Any) -> None:
    f = c(lambda x: (F.dropout(x, 0.5), F.dropout(x, 0.5, training=False), F.alpha_dropout(x, 0.3, training=True)))
    for n in range(3):
        x = grid(n, grad=True)
        out = f(x)
        see(out)
        sum(y.sum() for y in out).backward()
        see(x)


# ------------------------------------------------------------------------------------------------- layers


@right(captures=2)
def dropout_layer_in_both_modes(c: Any, see: Any) -> None:
    net = nn.Sequential(linear(4, 4), nn.Dropout(0.5))
    f = c(net)
    for n in range(6):
        net.train(n % 3 != 2)
        see(f(grid(n)))


@right()
def batch_norm(c: Any, see: Any) -> None:
    for options in ({}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}):
        net = nn.BatchNorm1d(4, **options)
        f = c(net)
        for n in range(6):
            net.train(n % 3 != 2)
            x = grid(n, grad=True)
            y = f(x)
            y.square().sum().backward()
            see(y, x, net.running_mean, net.running_var, net.num_batches_tracked, list(net.parameters()))


@right(captures=1)
def batch_norm_in_a_training_step(c: Any, see: Any) -> None:
    net = nn.Sequential(linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), linear(4, 2, seed=5))
    optimizer = kiln.optim.Adam(net.parameters(), lr=0.01)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    f = c(step)
    optimizer.zero_grad()
    for n in range(4):
        see(f(grid(n), kiln.tensor([0, 1, n % 2])), list(net.parameters()), list(net.buffers()))


@right(captures=1)
def convolution_step(c: Any, see: Any) -> None:
    kiln.manual_seed(3)
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 2))
    f = c(lambda x: net(x).square().mean())
    for n in range(3):
        x = grid(n, 4, 4).reshape(1, 1, 4, 4).requires_grad_()
        f(x).backward()
        see(x, list(net.parameters()))


@right()
def containers_of_modules(c: Any, see: Any) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.items = nn.ModuleList([linear(), linear(seed=4)])
            self.table = nn.ModuleDict({"a": linear(seed=5)})
            self.scales = nn.ParameterList([nn.Parameter(vector(1, 2))])

        def forward(self, x: Any, key: str) -> Any:
            for layer in self.items:
                x = layer(x)
            return self.table[key](x) * self.scales[0]

    net = Net()
    f = c(net)
    see(f(vector(1, 2), "a"), f(vector(1, 2), "a"))
    net.items.append(linear(seed=6))
    see(f(vector(1, 2), "a"), f(vector(1, 2), "a"))
    net.table["a"] = linear(seed=7)
    see(f(vector(1, 2), "a"), f(vector(1, 2), "a"))
    net.table["b"] = linear(seed=8)
    see(f(vector(1, 2), "b"), f(vector(1, 2), "a"))
    net.items[0] = nn.Identity()
    see(f(vector(1, 2), "b"), f(vector(1, 2), "b"))
    net.scales[0] = nn.Parameter(vector(5, 6))
    see(f(vector(1, 2), "b"), f(vector(1, 2), "b"))


@right()
def module_hooks_added_and_removed(c: Any, see: Any) -> None:
    net = nn.Sequential(linear(), nn.ReLU())
    f = c(net)
    see(f(vector(1, 2)), f(vector(1, 2)))
    handle = net[0].register_forward_hook(lambda module, args, out: out * 10)
    see(f(vector(1, 2)), f(vector(1, 2)))
    before = net.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    see(f(vector(1, 2)), f(vector(1, 2)))
    handle.remove()
    see(f(vector(1, 2)), f(vector(1, 2)))
    before.remove()
    see(f(vector(1, 2)), f(vector(1, 2)))


@right()
def module_hook_that_keeps_activations(c: Any, see: Any) -> None:
    net = nn.Sequential(linear(), nn.ReLU())
    kept: list[Any] = []
    net[0].register_forward_hook(lambda module, args, out: kept.append(out))
    f = c(net)
    for n in range(3):
        see(f(vector(n, 1)), kept)


@right()
def module_hook_with_state(c: Any, see: Any) -> None:
    net = nn.Sequential(linear(), nn.ReLU())
    scale = 10.0
    net[0].register_forward_hook(lambda module, args, out: out * scale)
    f = c(net)
    see(f(vector(1, 2)), f(vector(1, 2)))
    scale = 3.0
    see(f(vector(1, 2)), f(vector(1, 2)))


@refused()
def module_backward_hook(c: Any, see: Any) -> None:
    net = nn.Sequential(linear(), nn.ReLU())
    net[0].register_full_backward_hook(lambda module, grads, outs: (grads[0] * 10,))
    f = c(net)
    for n in range(3):
        x = vector(n, 1, grad=True)
        f(x).sum().backward()
        see(x)


@refused()
def module_backward_hook_with_backward_inside(c: Any, see: Any) -> None:
    net = nn.Sequential(linear(), nn.Tanh())
    net[0].register_full_backward_hook(lambda module, grads, outs: (grads[0] * 10,))
    f = c(lambda x: kiln.grad(net(x).sum(), x)[0])
    for n in range(3):
        see(f(vector(n, 1, grad=True)))


@right()
def module_changed_between(c: Any, see: Any) -> None:
    net = nn.Sequential(linear(), nn.LayerNorm(2), nn.GELU())
    f = c(net)
    see(f(vector(1, 2)), f(vector(1, 2)))
    net[1].eps = 0.5
    see(f(vector(1, 2)), f(vector(1, 2)))
    net[2].approximate = "tanh"
    see(f(vector(1, 2)), f(vector(1, 2)))
    net[0].bias = None
    see(f(vector(1, 2)), f(vector(1, 2)))
    net[1].weight.requires_grad_(False)
    see(f(vector(1, 2)), f(vector(1, 2)))
    net.insert(1, nn.ReLU()) if hasattr(net, "insert") else None
    see(f(vector(1, 2)), f(vector(1, 2)))


@right()
def module_deep_copied_with_hooks(c: Any, see: Any) -> None:
    net = nn.Sequential(linear(), nn.ReLU())
    f = c(net)
    see(f(vector(1, 2)), f(vector(1, 2)))
    g = copy.deepcopy(f)
    with kiln.no_grad():
        net[0].weight.zero_()
    see(f(vector(1, 2)), g(vector(1, 2)), g(vector(1, 2)))


@right()
def states_saved_and_loaded(c: Any, see: Any) -> None:
    net, other = linear(), linear(seed=9)
    f = c(net)
    see(f(vector(1, 2)), f(vector(1, 2)))
    file = io.BytesIO()
    pickle.dump({k: v.numpy() for k, v in other.state_dict().items()}, file)
    net.load_state_dict({k: kiln.from_numpy(v) for k, v in pickle.loads(file.getvalue()).items()})
    see(f(vector(1, 2)), f(vector(1, 2)))


@right()
def data_loader_around(c: Any, see: Any) -> None:
    from kiln.utils.data import DataLoader, TensorDataset

    loader = DataLoader(TensorDataset(grid(0, 8, 2), kiln.arange(8)), batch_size=3, shuffle=True)
    w = vector(1, 2, grad=True)

    def step(x: Any, y: Any) -> Any:
        loss = ((x * w).sum(1) - y).square().mean()
        loss.backward()
        return loss.detach()

    f = c(step)
    for _ in range(2):
        for x, y in loader:
            see(f(x, y), w)


@refused()
def data_loader_inside(c: Any, see: Any) -> None:
    from kiln.utils.data import DataLoader, TensorDataset

    loader = DataLoader(TensorDataset(grid(0, 8, 2)), batch_size=3, shuffle=True)
    f = c(lambda w: sum(((x * w).sum() for (x,) in loader), w.sum()))
    for n in range(3):
        see(f(vector(n, 1)))


@right()
def weight_sharing_with_the_output_layer(c: Any, see: Any) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(grid(0, 5, 3))

        def forward(self, tokens: Any) -> Any:
            return self.table[tokens] @ self.table.t()

    net = Net()
    optimizer = kiln.optim.SGD(net.parameters(), lr=0.1)

    def step(tokens: Any) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(net(tokens[:-1]), tokens[1:])
        loss.backward()
        optimizer.step()
        return loss

    f = c(step)
    for n in range(4):
        see(f(kiln.tensor([0, n, 2, 4])), net.table)


@right()
def cache_of_keys_and_values(c: Any, see: Any) -> None:
    cache = kiln.zeros(4, 2)

    def f(x: Any, position: int) -> Any:
        cache[position] = x
        return cache[: position + 1].sum(0) * 1, cache.max(0).values

    g = c(f)
    for _ in range(2):
        for n in range(4):
            see(g(vector(n, 1), n), cache)


@right()
def cache_written_at_a_position_that_is_a_tensor(c: Any, see: Any) -> None:
    cache, position = kiln.zeros(4, 2), kiln.tensor([0])

    def f(x: Any) -> Any:
        cache.index_copy_(0, position, x.reshape(1, 2))
        position.add_(1)
        return cache * 1

    g = c(f)
    for n in range(4):
        see(g(vector(n, 1)), cache, position)
    see.attempt(g, vector(9, 9))
    see(cache, position)


@right()
def loss_functions(c: Any, see: Any) -> None:
    for loss in (F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss, F.binary_cross_entropy_with_logits):
        for reduction in ("mean", "sum", "none"):
            f = c(lambda x, y: loss(x, y, reduction=reduction))  # noqa: B023
            for n in range(2):
                x = vector(n, 1, grad=True)
                out = f(x, vector(0, 1))
                out.sum().backward()
                see(out, x)
