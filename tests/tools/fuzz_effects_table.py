"""What the programs of `fuzz_effects.py` are made of: templates of statements, expressions, calls and changes."""

from __future__ import annotations

from typing import TypeAlias

Form: TypeAlias = str
"""Lines of a statement; `<b>` on a line of its own is a block of others."""

PRELUDE = '''\
import collections
import math

import kiln
from kiln import nn

POOL = [[0.5, -0.5, 1.0], [-1.0, 0.25, 2.0], [-0.75, -2.0, -0.125], [3.0, 0.0, -1.5]]
LIMITS = {"n": 1, "top": 1.5}


def T(i):
    return kiln.tensor(POOL[i % 4])


def M(i):
    return kiln.tensor([POOL[i % 4], POOL[(i + 1) % 4]])


class Box:
    scale = 2.0
    seen = []
    base = T(1)

    def __init__(self):
        self.t = T(0)
        self.n = 1
        self.flag = False
        self.items = [T(1), T(2)]
        self.table = {"a": T(3), "k": 1}
        self.name = "box"

    @property
    def doubled(self):
        return self.t * 2

    def bump(self, by=1):
        self.n += by
        return self.n

    def moved(self, e, *, scale=1.0):
        return (e - self.t) * scale * self.scale

    def __len__(self):
        return self.n


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(T(1) * 0.5)
        self.register_buffer("mean", T(2) * 0.1)
        self.calls = 0
        self.function = None

    def forward(self, *args, **kwargs):
        return self.function(*args, **kwargs)


box, net = Box(), Net()
opt = kiln.optim.SGD(net.parameters(), lr=0.1, momentum=0.5)
G, COUNT, LIST, DICT, SET = T(3), 1, [T(0), T(2)], {"a": T(1), "b": T(2)}, {1, 2}
DEQUE = collections.deque([1, 2], maxlen=3)
X, Y = T(0), T(1)


def scaled(e, by=2.0, *more, shift=0.0, **options):
    for m in more:
        e = e + m
    return e * by + shift + options.get("extra", 0.0)


@jit
def inner(e, count=1):
    return (e * net.w).sin() * count


@jit
def inner_write(e):
    e.mul_(0.5)
    return e + 1


def numbers(e):
    for i in range(2):
        yield e * i


def first(r):
    """The first tensor in a result."""
    if isinstance(r, dict):
        r = list(r.values())
    while isinstance(r, (tuple, list)):
        r = r[0]
    return r


def back(r, power=1, **options):
    """Gradients of a result, if it has any."""
    t = first(r)
    if isinstance(t, kiln.Tensor) and t.requires_grad:
        (t**power).sum().backward(**options)


def second(r, w):
    t = first(r)
    if isinstance(t, kiln.Tensor) and t.grad_fn is not None:
        (g,) = kiln.autograd.grad((t * t).sum(), w, create_graph=True, allow_unused=True)
        if g is not None and g.requires_grad:
            (g * g).sum().backward()
'''

FUNCTION = """\
def make():
    cell_t, cell_n = T(2), 1

    def f(x, y, *rest, k=1, flag=False, **options):
        nonlocal cell_t, cell_n
        global G, COUNT
        z = x + y
        v = x[:2]
        ...

    def cells():
        return cell_t, cell_n

    return f, cells


f, cells = make()
"""

FORMS = {
    "function": "f = jit(f)\n",
    "module": "net.function = f\nf = jit(net)\n",
    "method": "Box.f = jit(staticmethod(f).__func__)\nf = Box.f\n",
    "lambda": "g = f\nf = jit(lambda *a, **k: g(*a, **k))\n",
    "nested": "g = jit(f)\nf = jit(lambda *a, **k: (g(*a, **k), 1))\n",
}

CONSTANTS = ["0.5", "1.5", "-0.25", "2.0"]

VECTORS: dict[str, list[str]] = {
    "simple": [
        "<v> + <v>",
        "<v> * <k>",
        "<v> - <v>",
        "<v> * <v>",
        "kiln.tanh(<v>)",
        "<v>.exp().clamp(max=3.0)",
        "kiln.maximum(<v>, <v>)",
        "<v>.flip(0)",
        "kiln.where(<v> > <v>, <v>, -<v>)",
        "<v>.detach() * <v>",
        "<v>.clone()",
        "<v>",
        "<v> / 2",
        "<v> * <s>",
        "<v>.abs().cumsum(0)",
        "(<e>).sin()",
        "<v> * 1",
    ],
    "attributes": ["box.t + <v>", "box.doubled", "box.moved(<v>)", "box.moved(<v>, scale=<k>)", "<v> * Box.scale"],
    "containers": ["sum(LIST, <v>)", "DICT['a'] * <v>", "kiln.stack(LIST).sum(0)", "<v> * len(LIST)"],
    "cells": ["cell_t * <v>", "<v> + cell_n", "(lambda a: a * cell_n)(<v>)"],
    "globals": ["G + <v>", "<v> * COUNT", "<v> * LIMITS['top']"],
    "random": [
        "<v> + kiln.rand(3) * 0.5",
        "nn.functional.dropout(<v>, 0.5)",
        "<v>[kiln.randperm(3)]",
        "kiln.rand_like(<v>)",
    ],
    "numbers": [
        "<v> * <n>",
        "<v> * min(3, int((<v> > 0).sum()))",
        "<v> * (2 if <q> else 3)",
        "<v> * round(<s>.item(), 1)",
        "<v> * float(<s> > 0)",
        "<v> * <v>.tolist()[0]",
        "<v> * kiln.tensor(<n>)",
        "<v> * <v>.shape[0]",
    ],
    "masks": [
        "kiln.cat([<v>[<v> > 0], kiln.zeros(3)])[:3]",
        "<v>.masked_fill(<v> > 0, <k>)",
        "<v>[kiln.tensor([2, 0, 1])]",
    ],
    "views": [
        "<v>[:]",
        "<v>.view(3, 1)[:, 0]",
        "<v>[None].expand(2, 3)[1]",
        "kiln.stack([<v>, <v>]).t()[:, 1]",
        "kiln.cat([v, <v>])[:3]",
        "<v> * v.sum()",
    ],
    "gradients": [
        "kiln.autograd.grad((net.w * <v>.detach()).exp().sum(), net.w)[0].clamp(-1, 1)",
        "(net.w.grad if net.w.grad is not None else <v>)",
        "kiln.autograd.grad((net.w.tanh() * 2).sum(), net.w, create_graph=True)[0]",
        "net.w * <v>",
    ],
    "transforms": [
        "kiln.vmap(lambda a: a * 2 + <v>[0])(<v>)",
        "kiln.vmap(lambda a, b: kiln.where(a > b, a, b * 2))(<v>, <v>)",
        "kiln.func.grad(lambda a: (a * a).sum())(<v>)",
        "kiln.func.grad(lambda a: (a.sin() * <v>.detach()).sum())(<v>.detach())",
        "kiln.func.jvp(kiln.tanh, (<v>.detach(),), (kiln.ones(3),))[1]",
        "kiln.func.grad(lambda a: kiln.func.grad(lambda b: (b ** 3).sum())(a).sum())(<v>.detach())",
        "kiln.vmap(kiln.func.grad(lambda a: (a.exp() * a).sum()))(kiln.stack([<v>, <v>]).detach())[1]",
        "kiln.vmap(lambda a: a * (2 if flag else 3) + <n>)(<v>)",
        "kiln.func.vjp(lambda a: a.tanh() * 2, <v>.detach())[1](kiln.ones(3))[0]",
        "kiln.func.jacrev(lambda a: (a * a * a).sum())(<v>.detach())",
    ],
    "functions": [
        "scaled(<v>)",
        "scaled(<v>, <k>, <v>, shift=1.0)",
        "scaled(*[<v>, <k>], **{'extra': <n>})",
        "scaled(<v>, by=<n>)",
        "inner(<v>)",
        "inner(<v>, <n>)",
        "sum(numbers(<v>))",
    ],
    "comprehensions": [
        "sum([u * 2 for u in [x, y, z] if u is not z])",
        "kiln.stack([u for u in LIST if u.sum() > 0] + [<v>]).sum(0)",
        "sum(u for u in DICT.values())",
        "kiln.stack([u * i for i, u in enumerate([x, y])]).sum(0)",
        "{name: u for name, u in zip('ab', [<v>, <v>])}['a']",
    ],
}

QUESTIONS = [
    "<s> > <k>",
    "(<v> > 0.3).any()",
    "bool(<v>[0] < <v>[1])",
    "<v>.mean() < 0.1",
    "int(<v>[1] > 0) == 1",
    "not (<v> > 0).all()",
    "<v>.abs().sum() > 1.5 and <v>.min() < 0.2",
    "<s> > 0 or flag",
    "kiln.nonzero(<v> > 0).shape[0] > 1",
    "kiln.equal(<v>, <v>)",
    "<n> > 1",
    "flag",
    "box.flag",
    "x is y",
    "<v> is <v>",
    "k == 2",
    "x.shape[0] == 3",
    "x.dtype == kiln.float32",
    "x.requires_grad",
    "len(LIST) > 2",
    "'b' in DICT",
    "box.n in SET",
    "kiln.is_grad_enabled()",
    "rest",
    "options.get('extra')",
    "isinstance(k, int)",
    "net.w.grad is None",
    "net.training",
]

STATEMENTS: dict[str, list[Form]] = {
    "writes": [
        "<m>.add_(<e>)",
        "<t>.mul_(<k>)",
        "<m>.copy_(<e>)",
        "<m> += <v>",
        "<t>.clamp_(-1.5, 1.5)",
        "<t>.zero_()",
        "x.add_(1.0)\nz = z + y",
        "y.mul_(<k>)\nz = z * x",
        "x.add_(1.0)\nz = z * <v>",
        "<l> = <m>.add_(1.0)",
        "with kiln.no_grad():\n    <t>.mul_(0.5)",
        "<t>.detach().add_(1.0)",
    ],
    "slices": [
        "<t>[0] = <s>",
        "<t>[1:] += 1",
        "<m>[<v> > 0] = <k>",
        "<m>[1:] = <v>[:2]",
        "<t>[<t> > 0.5] *= 2",
        "<t>[kiln.tensor([0, 1])] = <k>",
        "<m>[:] = <e>",
        "<t>[-1] -= <s>",
        "<m>.add_(1)\nz = z[(x * 2).long()]",
        "<t>.index_fill_(0, kiln.tensor([1]), <k>)",
    ],
    "views": [
        "v = <t>[:2]\nv.mul_(2)",
        "x.mul_(<k>)\nz = z + v.sum()",
        "v = z[1:]\nz.mul_(<k>)\ny = y * v.sum()",
        "x.add_(1)\nv.mul_(2)",
        "v = <t>[1:]\nz = <e>\nv[0] = <k>",
        "<l> = <m>.view(3, 1)\n<l>[0] = 1.0\n<l> = <l>[:, 0]",
        "m = kiln.stack([<v>, <v>])\nm[0].add_(<v>)\nz = m.sum(0)",
        "v = x.view(1, 3)[0][1:]\nv.add_(<s>)",
        "a, b = kiln.stack([<v>, <v>]).unbind(0)\na.mul_(b)\nz = a",
        "p, q = <t>[:1], <t>[1:]\nq.add_(p)\nz = z * q.sum()",
        "z = x\nz.add_(1)",
        "v = <t>[::2]\nv.zero_()",
        "z = <t>.t()\nz.mul_(<k>)",
    ],
    "attributes": [
        "<l> = box.t",
        "<l> = box.items[<n> % 2]",
        "box.t.add_(<e>)",
        "z = z * box.table['k']",
        "z = z + getattr(box, 'other', 1)",
        "if hasattr(box, 'extra'):\n    z = z * 2",
        "Box.base.mul_(<k>)",
    ],
    "containers": [
        "<l> = LIST[<n> % 2]",
        "LIST[0].mul_(<k>)",
        "for u in LIST:\n    u.add_(1)",
        "DICT['a'].copy_(<e>)",
        "z = z * len(DEQUE)",
        "acc = []\nfor u in LIST:\n    acc.append(u * 2)\nz = acc[0]",
        "acc = {'p': <v>}\nacc['q'] = <v>\nacc['p'] = acc.pop('q')\nz = acc['p']",
        "acc = [x, y, z]\nacc.reverse()\nx, y, z = acc",
        "acc = [<v>, <v>]\nacc[0].add_(1)\nz = acc[0] + acc[1]",
        "acc = [*LIST, x]\ndel acc[0]\nz = acc[-1]",
        "first, *others = LIST\nz = z + first",
    ],
    "cells": [
        "<l> = cell_t",
        "cell_t.mul_(0.5)",
        "def g(a, b=<n>):\n    return a * b + cell_n\nz = g(<v>)",
        "def g(a):\n    nonlocal z\n    z = z + a\ng(<v>)",
    ],
    "globals": ["<l> = G", "G.add_(<e>)", "z = z * LIMITS['n']", "z = z * math.sqrt(4.0)"],
    "numbers": [
        "n = <n>\nz = z * n",
        "n = int(<s>)\nz = z + n",
        "z = z * (n := 2) + n",
        "n = <s>.item()\nz = z * n",
        "assert <q>, 'no'",
        "n = float(<s>)\nif n > <k>:\n    n = n * 2\nz = z + n",
        "n = int(<s> * 4)\nz = z * (n // 2) + n % 3",
        "a, b, c = <v>.tolist()[:3]\nz = z * a + max(b, c)",
        "n = (<v> > 0).sum().item()\nz = z * x[n % 3]",
        "n = int(<v>.argmax())\nz = z + z[n]",
        "n = int((<v> > 0).sum())\nz = z[:n].sum() * x",
        "n = round(float(<s>), 2)\nz = z * n if n < <k> else z - n",
        "k = k + int((<v> > 0).sum())",
        "if <s> > <k>:\n    k = k + 1",
        "while k < 4 and <s> > <k>:\n    k = k + 1",
        "if (<v> > 0.3).any():\n    k = k * 2\nelse:\n    k = k - 1\nz = z * k",
        "n = <s>.item()\nn = abs(n) ** 2 if n < 0 else -n\nz = z + n",
        "n, r = 0, 1.0\nif <q>:\n    n = n + 1\n    r = r / 2\nz = z * n + r\nk = k + n",
        "n = 0\nfor u in (x, y, z):\n    if (u > 0.3).any():\n        n += 1\nz = z + n",
        "n = <s>.item() > <k>\nz = z + 1 if n else z",
        "n = <v>.tolist()\nn.sort()\nz = z * n[0]",
        "assert z.shape[0] == 3",
        "text = f'{<n>} {k}'\nz = z * len(text)",
    ],
    "raising": [
        "if <q>:\n    raise ValueError('no')",
        "if <q>:\n    raise KeyError(<n>)",
        "try:\n    <b>\n    if <q>:\n        raise ValueError('inside')\n    <b>\nexcept ValueError:\n    <b>",
        "try:\n    <b>\nfinally:\n    <t>.add_(1)",
        "try:\n    z = z * DICT['none']\nexcept KeyError as error:\n    z = z * len(error.args)",
        "z = z[(<v> * 2).long()]",
        "<m>.add_(1)\nz = z[(<v> * 2).long()]",
        "try:\n    z = z[(<v> * 2).long()]\nexcept IndexError:\n    <b>",
        "try:\n    z = z + kiln.zeros(4)\nexcept kiln.KilnError:\n    <b>",
        "try:\n    <b>\nexcept Exception:\n    raise\nelse:\n    <b>",
        "raise_at = <n>\nif raise_at > 1 and <q>:\n    raise RuntimeError(f'at {raise_at}')",
        "z = z + x[:3].view(3)",
        "if flag:\n    del z",
    ],
    "returns": [
        "if <q>:\n    return <v>",
        "if <q>:\n    return <v>, <v> * 1",
        "if <q>:\n    return None",
        "if <q>:\n    return {'a': <v>, 'n': <n>}",
    ],
    "statistics": [
        "net.mean.mul_(0.9).add_(<v>.detach() * 0.1)",
        "net.mean.copy_(<e>.detach())",
        "with kiln.no_grad():\n    net.mean.lerp_(<v>.detach(), 0.5)",
        "z = z - net.mean",
        "if net.training:\n    net.mean.add_(1)\nz = z * net.mean",
    ],
    "parameters": [
        "with kiln.no_grad():\n    net.w.add_(<k>)",
        "net.w.data.mul_(0.5)",
        "z = z * net.w",
        "net.w.requires_grad_(True)",
        "z = nn.functional.relu(z * net.w)",
        "with kiln.no_grad():\n    for p in net.parameters():\n        p.copy_(p * 0.5)",
    ],
    "gradients": [
        "(net.w * <v>.detach()).sum().backward()",
        "net.w.grad = None",
        "(net.w ** 2).sum().backward()\nopt.step()",
        "opt.zero_grad()\n(net.w * <v>.detach()).sum().backward()\nopt.step()",
        "if net.w.grad is not None:\n    net.w.grad.zero_()",
        "if net.w.grad is not None:\n    z = z + net.w.grad",
        "u = <v>.detach().clone().requires_grad_()\n(u * u).sum().backward()\nz = z + u.grad",
        "z = z.detach()",
        "with kiln.no_grad():\n    z = z * net.w",
        "with kiln.enable_grad():\n    u = (net.w * 2).sum()\nz = z + kiln.autograd.grad(u, net.w)[0]",
        "net.w.grad = <v>.detach().clone()",
        "opt.step()",
        "opt.zero_grad(set_to_none=False)",
    ],
    "hooks": [
        "u = net.w * <v>.detach()\nu.register_hook(lambda g: g * 2)\nu.sum().backward()",
        "u = net.w * 2\nseen = []\nu.register_hook(seen.append)\nu.sum().backward()\nz = z + seen[0]",
        "u = (<v>.detach() * net.w)\nu.retain_grad()\nu.sum().backward()\nz = z + u.grad",
        "z = z * net.w\nif z.requires_grad:\n    z.register_hook(lambda g: g * 0.5)",
    ],
    "random": [
        "z = z + kiln.randn(3)",
        "<t>.uniform_()",
        "kiln.manual_seed(<i>)",
        "z = kiln.bernoulli(<v>.sigmoid())",
        "z = z + kiln.randint(0, 5, (3,))",
    ],
    "transforms": [
        "z = kiln.vmap(lambda a: a + <v>.sum())(kiln.stack([<v>, <v>]))[0]",
        "z, n = kiln.func.grad_and_value(lambda a: (a * a).sum())(<v>.detach())",
    ],
    "functions": [
        "inner_write(<t>)",
        "z = inner(<v>) + inner(<v>, count=2)",
        "x, y = y, x",
        "z = [u for u in numbers(<v>)][1]",
        "it = iter([x, y])\nz = z + next(it)",
        "def g(*a, **o):\n    return a[0] * o.get('s', 1)\nz = g(<v>, s=<n>)",
        "z = max([x, y], key=lambda a: a.sum().item())",
        "h = lambda a=z: a * 2\nz = h()",
    ],
    "comprehensions": ["z = kiln.stack([u for u in (x, y, z) if (u > 0).any()] or [z]).sum(0)"],
    "modes": [
        "with kiln.no_grad():\n    <b>",
        "with kiln.enable_grad():\n    <b>",
        "with kiln.set_grad_enabled(flag):\n    <b>",
    ],
    "names": [
        "<l> = <l>\nif <q>:\n    <l> = <e>\nelse:\n    <l> = <v>",
        "u = <v>\nif <q>:\n    u = <e>\nz = z + (1 if u is <v> else 0)",
        "u = <v>\nif <s> > <k>:\n    u = u * 2\nz = z + sum(1 for w in (x, y, z) if w is u)",
        "u = <v> if <q> else <v>\nz = z + (u is <v>)",
        "u, n = <v>, 0\nwhile u.sum() < <k> and n < 3:\n    u, n = u + 1, n + 1\nz = u",
        "m = kiln.stack([<v>, <v>])\nz = m[1] if <q> else <v>",
        "if <s> > <k>:\n    z = <v>",
        "if <s> > <k>:\n    x, y = y, x",
    ],
    "lists": [
        "acc = [z]\nif <q>:\n    acc.append(<v>)\nz = kiln.stack(acc).sum(0)",
        "acc = []\nfor u in (x, y, z):\n    if (u > 0.3).any():\n        acc.append(u * 2)\nz = sum(acc, z)",
        "acc = []\nfor i in range(min(3, int((<v> > 0).sum()))):\n    acc.append(z * i)\nz = z + len(acc)",
        "acc = {}\nif <q>:\n    acc['a'] = <e>\nz = acc.get('a', z)",
        "acc = {'a': z, 'n': 0}\nif <s> > <k>:\n    acc['a'], acc['n'] = <e>, acc['n'] + 1\nz = acc['a'] * acc['n']",
        "acc = [x, y]\nif <s> > <k>:\n    acc = [z, y]\nz = acc[0] + acc[1]",
        "acc = [x, y]\nacc[int(<s> > 0)] = z\nz = acc[0] - acc[1]",
        "acc = (z, 0)\nif <s> > <k>:\n    acc = (z * 2, 1)\nz = acc[0] + acc[1]",
    ],
    "early": [
        "if <s> > <k>:\n    return <v> * 1",
        "if <q>:\n    return z, <s>.item()",
        "for u in (x, y, z):\n    if u.sum() > <k>:\n        return u * 1",
        "if <q>:\n    raise ValueError(f'bad {<s>.item():.2f}')",
        "if <s> > 2.5:\n    raise ValueError(z.shape)",
        "for i in range(3):\n    z = z * 0.5\n    if <s> > <k>:\n        break\nelse:\n    z = z + 1",
        "if <q>:\n    if <q>:\n        return z * 1\n    z = z + 1",
    ],
    "masks": ["<m>.masked_fill_(<v> > 0, <k>)", "z = z[z > 0].sum() * x", "q = <v> > <v>\n<m>[q] = <v>[q]"],
}

WRITES: dict[str, list[Form]] = {
    "attribute writes": [
        "box.t = <e>",
        "box.n += 1",
        "box.n = <i>",
        "box.flag = not box.flag",
        "if <q>:\n    box.n = <i>",
        "box.bump()",
        "setattr(box, 'extra', <n>)",
        "Box.scale = <k>",
        "if hasattr(box, 'extra'):\n    del box.extra\nelse:\n    box.extra = 1",
        "net.calls += 1",
        "box.t = box.t",
        "box.met = getattr(box, 'met', 0) + 1\nz = z * box.met",
        "box.best = min(getattr(box, 'best', 9.0), <s>.item())",
        "if <q>:\n    box.t = <v>\nelse:\n    box.n += 1",
        "box.table[f'k{<n>}'] = <n>",
        "box.table['m'] = box.table.get('m', 0) + <n>",
        "box.pair = (<v>, <n>)",
        "if <q>:\n    box.flag = True\nz = z * 2 if box.flag else z",
        "z = z * box.n\nbox.n += 1\nz = z + box.n",
        "box.name = f'{<s>.item():.2f}'",
        "u = <v>\nif <s> > <k>:\n    u = <e>\nbox.t = u",
        "box.last = <v>",
        "if not hasattr(box, 'cache'):\n    box.cache = T(2)\nz = z + box.cache",
    ],
    "container writes": [
        "LIST.append(<v>)",
        "LIST[0] = <e>",
        "if len(LIST) > 2:\n    LIST.pop()",
        "DICT['b'] = <v>",
        "DICT.pop('b', None)",
        "box.items[1] = <v>",
        "SET.add(<n>)",
        "SET.discard(2)",
        "DEQUE.append(<n>)",
        "DEQUE.popleft() if DEQUE else None",
        "box.table['k'] += 1",
        "Box.seen.append(<n>)",
        "LIST.reverse()",
        "if <q>:\n    LIST.append(<v>.detach())",
        "LIST.append(z)\nz = z + LIST[-1]",
        "Box.seen.append(<s>.item())",
        "u = <v>\nif <s> > <k>:\n    u = <e>\nLIST.append(u)",
        "for u in (x, y):\n    if (u > 0).any():\n        box.items.append(u)",
        "if len(LIST) > 3:\n    del LIST[0]",
        "LIST[:] = [<e>, *LIST[:1]]",
        "DICT['z'] = z\nz = DICT['z'] * 2",
        "LIST.insert(0, <e>)\nLIST.pop()",
        "LIST.extend([<v>, <e>])\ndel LIST[:2]",
        "box.table.setdefault('seen', []).append(<n>)",
        "box.items.sort(key=len)",
        "DICT.setdefault('c', <v>)",
        "box.table.update(k=<n>)",
    ],
    "global writes": ["COUNT += 1", "G = <e>", "if <q>:\n    COUNT = <i>", "G = G", "G += 1"],
    "cell writes": ["cell_n += 1", "cell_t = <e>", "if <q>:\n    cell_n = <i>"],
    "prints": [
        "print('at', <n>)",
        "print(f'{<s>.item():.3f}')",
        "print(<v>)",
        "if <q>:\n    print('yes')",
        "print(x.shape, k)",
        "print(f'{<v>}', end=';')",
        "print(z.tolist(), <s>, sep='|')",
        "print(f'{<s>:.2f} {<n>:>4} {z!r}')",
        "if <q>:\n    print('big', <s>.item())\nelse:\n    print('small')",
        "text = f'{<s>.item():.1f}'\nprint(text.rjust(8), text + '!')",
        "for i in range(2):\n    print(i, <s>.item() * i)",
        "print('%s %d' % (<s>.item(), <n>))",
        "n = int(<s>)\nprint(n, n + 1, n > 0)",
        "print([<s>.item(), <n>], {'a': <n>})",
    ],
    "parameter writes": [
        "net.w = nn.Parameter(<v>.detach().clone())",
        "net.w.data = <v>.detach().clone()",
        "net.mean = <v>.detach().clone()",
        "net.train(not net.training)",
        "net.w.requires_grad_(flag)",
    ],
}

RETURNS = [
    "return z",
    "return z * 1, x",
    "return {'z': z, 'y': y, 'k': k}",
    "return x, y, z, v",
    "return [z, <v>], <n>",
    "return <v>",
    "return z.sum(), (x * 1, None)",
    "return z if <q> else x",
    "return None",
    "return <e>",
    "return box.t",
    "return LIST",
    "return (x, x), [z, z]",
    "return z.detach(), z",
    "return <v>[0], <v>[1:]",
    "return box, z",
    "return {**DICT, 'z': z}",
    "return z.tolist(), x.shape",
    "return cell_t, G",
    "return z.view(3, 1), z",
    "return z, <s>.item()",
    "return {'loss': z.sum().item(), 'n': int((<v> > 0).sum())}",
    "return z, [float(u) for u in <v>]",
    "return f'{z.sum().item():.4f}', z",
    "return z, str(z), <n> + 1",
    "return z * 1, k",
    "return z, <s>.item() > <k>, round(<s>.item(), 1)",
]

PLAIN = [
    "f(T(#), T(1))",
    "f(T(#), T(2), k=2)",
    "f(X, Y)",
    "f(T(#), T(0), flag=True)",
]
"""Calls; `#` is the number of a row of the pool."""

ALIASED = [
    "a = T(#); f(a, a)",
    "a = T(#); f(a, a[:])",
    "a = M(#); f(a[0], a[1])",
    "a = M(#); f(a[0], a[0])",
    "a = kiln.cat([T(#), T(1)]); f(a[:3], a[1:4])",
    "a = kiln.cat([T(#), T(1)]); f(a[1:4], a[:3])",
    "a = kiln.cat([T(#), T(1)]); f(a[:3], a[2:5])",
    "f(X, X.view(3))",
    "f(LIST[0], LIST[0][:])",
    "f(box.t, box.t[:])",
    "G = X[:]; f(X, T(#))",
    "f(G, LIST[0])",
    "f(box.t, T(#))",
    "f(T(#), G)",
    "f(net.mean, T(#))",
    "f(LIST[0], T(#))",
    "a = T(#).requires_grad_(); f(a * 2, a)",
    "f(Box.base, box.t)",
]
"""Calls whose arguments are one, or share memory, or are reached otherwise, too."""

CALLS = [
    "f(T(#), net.w.detach())",
    "f(T(#).requires_grad_(), T(1))",
    "a = T(#).requires_grad_(); f(a * 2, T(1))",
    "f(T(#), net.w)",
    "f(net.w, T(#))",
    "f(T(#).double(), T(1).double())",
    "f(T(#), T(1), T(2), k=3)",
    "f(T(#), T(1), extra=2)",
    "f(kiln.cat([T(#), T(1)]), kiln.cat([T(#), T(1)]))",
    "f(kiln.tensor([1, -2, 3]), T(#))",
    "f(T(#), M(0)[:, 0].sum() * T(0))",
    "f(M(#).t()[:, 0], T(1))",
    "f(kiln.cat([T(#), T(1)])[::2], T(1))",
    "f(x=T(#), y=T(1))",
    "X = T(#); f(X, Y, k=2)",
    "f(T(#), T(1).expand(3))",
    "f(T(#)[:1].expand(3), T(1))",
    "f(OLD if isinstance(OLD, kiln.Tensor) else X, T(#))",
]

CHANGES = [
    "box.n = 2",
    "box.n = 1",
    "box.t = T(#)",
    "box.t.add_(1)",
    "box.flag = not box.flag",
    "box.items.reverse()",
    "Box.scale = 3.0",
    "LIST.append(T(#))",
    "LIST.pop() if len(LIST) > 1 else None",
    "LIST[0] = T(#)",
    "LIST[0] = X",
    "DICT['a'] = T(#)",
    "DICT.pop('b', None)",
    "DICT['b'] = X",
    "G = T(#)",
    "G = X",
    "COUNT += 1",
    "COUNT = 1",
    "LIMITS['n'] = 3 - LIMITS['n']",
    "net.w.grad = None",
    "net.w.grad = T(#)",
    "net.w = nn.Parameter(T(#))",
    "net.mean = T(#)",
    "net.mean.mul_(2)",
    "net.train(not net.training)",
    "net.w.requires_grad_(not net.w.requires_grad)",
    "kiln.manual_seed(3)",
    "X.add_(1)",
    "X = T(#)",
    "X = Y",
    "box.table['k'] = 2",
    "SET.add(3)",
    "box.extra = 1",
    "box.other = 3",
    "Y = X[:]",
    "box.t = G",
    "box.items[0] = box.t",
    "G = box.t[:]",
    "net.w.data = T(#)",
    "opt.param_groups[0]['lr'] = 0.05",
    "with kiln.no_grad(): net.w.mul_(0.5)",
    "net.w.grad = LIST[0]",
]

POSTS = [
    "back(R)",
    "back(R)",
    "back(R, 2)",
    "back(R, retain_graph=True)",
    "back(R); back(R)",
    "second(R, net.w)",
    "first(R).add_(1)",
    "net.w.grad = None",
    "back(R); opt.step()",
    "back(R); opt.zero_grad()",
    "first(R).detach().mul_(2)",
    "R = None",
]
