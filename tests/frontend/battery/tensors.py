"""Tensors as arguments: kinds, layouts, the same one twice, views of one another."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

import kiln
from kiln import nn
from tests.frontend.battery.kit import Table, linear, vector

PROGRAMS = Table()
right, refused = PROGRAMS.right, PROGRAMS.refused


@right(captures=5)
def shapes_change(c: Any, see: Any) -> None:
    f = c(lambda x: (x * 2).sum(-1))
    for shape in ((3,), (2, 3), (1, 3), (0,), (2, 0), (3,), (2, 3)):
        see(f(kiln.ones(*shape)))


@right(captures=4)
def dtypes_change(c: Any, see: Any) -> None:
    f = c(lambda x: x * 2)
    for d in (kiln.float32, kiln.float64, kiln.int64, kiln.bool, kiln.float32, kiln.int64):
        see(f(kiln.tensor([0, 1], dtype=d)))


@right()
def strides_change(c: Any, see: Any) -> None:
    f = c(lambda x: (x * 2, x.t(), x.sum(0), x.is_contiguous()))
    base = kiln.arange(36.0).reshape(6, 6)
    for x in (
        base[:3, :3],
        base[:3, :3].t(),
        base[::2, ::2],
        base[:3, :3].clone(),
        base[3:, 1:4],
        base[0].expand(6, 6),
    ):
        see(f(x))


@right(captures=1)
def offsets_change(c: Any, see: Any) -> None:
    f = c(lambda x: (x * 2, x[1:]))
    base = kiln.arange(8.0)
    for n in (0, 2, 4, 5):
        see(f(base[n : n + 3]))


@refused()
def offsets_are_asked_for(c: Any, see: Any) -> None:
    f = c(lambda x: x * x.storage_offset())
    base = kiln.arange(8.0)
    for n in (0, 2, 4):
        see(f(base[n : n + 3]))


@refused()
def versions_are_asked_for(c: Any, see: Any) -> None:
    f = c(lambda x: x * x._version)
    x = vector(1)
    for _ in range(3):
        see(f(x))
        x.add_(1.0)


@refused()
def addresses_are_asked_for(c: Any, see: Any) -> None:
    f = c(lambda x: x.data_ptr())
    keep = [vector(n) for n in range(3)]
    for x in keep:
        see(f(x) == x.data_ptr())


@refused()
def identity_is_asked_for(c: Any, see: Any) -> None:
    f = c(lambda x: id(x))
    keep = [vector(n) for n in range(3)]
    for x in keep:
        see(f(x) == id(x))


@right()
def parameter_or_tensor(c: Any, see: Any) -> None:
    f = c(lambda x: x * 2 if isinstance(x, nn.Parameter) else x * 3)
    see(f(nn.Parameter(vector(1))), f(vector(1, grad=True)), f(nn.Parameter(vector(1))))


@refused()
def grad_fn_is_asked_for(c: Any, see: Any) -> None:
    f = c(lambda x: (x * 2, x.grad_fn.name()))
    x = vector(1, grad=True)
    see(f(x * 2), f(x + 1), f(x.exp()))


@right()
def same_tensor_twice(c: Any, see: Any) -> None:
    f = c(lambda x, y: (x * y, x is y))
    a, b = vector(1, 2), vector(3, 4)
    for _ in range(2):
        see(f(a, b), f(a, a), f(b, a), f(b, b))


@right()
def same_leaf_twice(c: Any, see: Any) -> None:
    f = c(lambda x, y: (x * y * y).sum())
    for same in (False, True, False, True, True):
        a, b = vector(1, 2, grad=True), vector(3, 4, grad=True)
        f(a, a if same else b).backward()
        see(a, b)


@right()
def argument_is_also_in_the_closure(c: Any, see: Any) -> None:
    w, v = vector(2, 3), vector(5, 7)
    f = c(lambda x: x * w + x)
    see(f(w), f(v), f(w), f(v))


@right()
def closure_is_passed_later(c: Any, see: Any) -> None:
    w, v = vector(2, 3), vector(5, 7)
    f = c(lambda x: x * w + x)
    see(f(v), f(v), f(w), f(w), f(v))


@right()
def closure_is_passed_later_with_gradients(c: Any, see: Any) -> None:
    f_w, v = vector(2, 3, grad=True), vector(5, 7, grad=True)
    f = c(lambda x: (x * f_w).sum())
    for x in (v, v, f_w, f_w, v):
        f_w.grad = v.grad = None
        f(x).backward()
        see(f_w, v)


@right()
def parameter_is_passed_to_its_module(c: Any, see: Any) -> None:
    layer = linear(2, 2)
    f = c(layer)
    see(f(layer.weight), f(kiln.ones(2, 2).requires_grad_()), f(kiln.ones(2, 2).requires_grad_()))


@right()
def identity_with_the_closure(c: Any, see: Any) -> None:
    w = vector(2, 3)
    f = c(lambda x: x * 2 if x is w else x * 3)
    see(f(vector(1, 1)), f(w), f(vector(1, 1)), f(w))


@right()
def gradient_is_passed(c: Any, see: Any) -> None:
    w = vector(2, 3, grad=True)
    (w * w).sum().backward()
    f = c(lambda g: w.grad * 2 + g)
    see(f(w.grad), f(vector(1, 1)), f(w.grad), f(vector(1, 1)))


@right()
def views_of_one_tensor(c: Any, see: Any) -> None:
    f = c(lambda x, y: (x * y, x + 1))
    base = kiln.arange(8.0)
    for x, y in ((base[:4], base[4:]), (base[:4], base[2:6]), (base[:4], vector(1, 2, 3, 4)), (base[:4], base[:4])):
        see(f(x, y), f(x, y))


@right()
def base_and_view(c: Any, see: Any) -> None:
    f = c(lambda x, y: (x.sum() * y).sum())
    for _ in range(3):
        base = vector(1, 2, 3, grad=True)
        f(base, base[1:]).backward()
        see(base)


@right()
def views_of_leaves_and_of_computed_tensors(c: Any, see: Any) -> None:
    f = c(lambda y: (y * y).sum())
    for kind in range(6):
        leaf = vector(1, 2, 3, grad=True)
        y = [leaf[1:], (leaf * 2)[1:], leaf.reshape(3, 1), leaf.detach()[1:], leaf.expand(2, 3), leaf.clone()[1:]][kind]
        for _ in range(2):
            out = f(y)
            see(out)
            if out.requires_grad:
                out.backward(retain_graph=True)
            see(leaf)


@right()
def view_whose_base_was_written(c: Any, see: Any) -> None:
    f = c(lambda y: y * 2)
    for _ in range(3):
        w = vector(3, 4, grad=True)
        base = kiln.zeros(2)
        y = base[1:]
        see(f(y))
        base.mul_(0.0)
        base.add_(w)
        out = f(y)
        see(out)
        out.sum().backward()
        see(w)


@right()
def requires_grad_of_arguments(c: Any, see: Any) -> None:
    f = c(lambda x, y: x * y)
    for a in (False, True, False):
        for b in (False, True):
            x, y = vector(1, grad=a), vector(2, grad=b)
            out = f(x, y)
            see(out)
            if out.requires_grad:
                out.sum().backward()
            see(x, y)


@right()
def read_only_arrays(c: Any, see: Any) -> None:
    a = np.ones(3, np.float32)
    a.flags.writeable = False
    f = c(lambda x: (x * 2, x[1:]))
    for x in (kiln.from_numpy(a), kiln.ones(3), kiln.from_numpy(a)):
        see(f(x))


@right()
def empty_tensors(c: Any, see: Any) -> None:
    f = c(lambda x: (x.sum(), x * 2, x.reshape(-1) if x.numel() else x))
    for shape in ((0,), (0, 3), (3, 0), (1,), (0,)):
        see(f(kiln.zeros(*shape)))


@right()
def zero_dimensional(c: Any, see: Any) -> None:
    f = c(lambda x: (x * 2, x.reshape(1), x.item if False else x.shape))
    for n in range(3):
        see(f(kiln.tensor(float(n))))


@right()
def keeps_the_argument_as_default(c: Any, see: Any) -> None:
    def f(x: Any, w: Any = None) -> Any:
        w = x if w is None else w
        return x * w

    g = c(f)
    for n in range(2):
        see(g(vector(n)), g(vector(n), vector(3)), g(vector(n), None))


@right(captures=2)
def unused_arguments(c: Any, see: Any) -> None:
    f = c(lambda x, unused, also=None: x * 2)
    for n in range(3):
        see(f(vector(n), vector(1)), f(vector(n), vector(1), vector(2)))


@right()
def no_arguments(c: Any, see: Any) -> None:
    w = vector(1)
    f = c(lambda: w * 2)
    g = c(lambda: kiln.ones(2) * 3)
    h = c(lambda: 5)
    for n in range(3):
        see(f(), g(), h())
        w.add_(float(n))


@right()
def nothing_but_numbers(c: Any, see: Any) -> None:
    f = c(lambda a, b: a * b)
    for _ in range(2):
        see(f(2, 3), f(2.0, 3), f("a", 3), f(True, True))


@right()
def copies_of_compiled_arguments(c: Any, see: Any) -> None:
    f = c(lambda xs: sum(copy.copy(xs)) + len(copy.deepcopy({"a": [1, 2]})["a"]))
    for n in range(3):
        see(f([vector(n), vector(2)]))


@right()
def many_signatures(c: Any, see: Any) -> None:
    f = c(lambda x, n: x * n)
    for n in [*range(70), 0, 1, 69]:
        see(f(vector(1), n))


@right()
def generator_of_kiln_as_argument(c: Any, see: Any) -> None:
    f = c(lambda g: kiln.rand(2, generator=g))
    a, b = kiln.Generator(1), kiln.Generator(2)
    for _ in range(3):
        see(f(a), f(b))
