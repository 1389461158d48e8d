"""Functions that make functions: derivatives of functions, under the names of torch.func.

Reverse mode goes over the tape, forward mode through dual tensors (`kiln.dual`), batches through batched ones
(`kiln.batched`): all of them compose, in any order, with each other and with `kiln.compile`. Arguments may be nested in
lists, tuples and dicts.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from kiln import creation
from kiln import functional as F
from kiln import movement as M
from kiln.autograd.backward import grad as _backward
from kiln.autograd.grad_mode import enable_grad, no_grad
from kiln.autograd.tape import Node, edge_of, resolved
from kiln.base import MODES, SPENT, TensorBase
from kiln.dual import DualLayer, Linear
from kiln.errors import ArgumentError, GradError, InvalidValueError, ShapeError
from kiln.layers import layers_of, owned
from kiln.nn.module import Module
from kiln.promotion import same_place
from kiln.pytree import Tree, flatten, map_tree, unflatten
from kiln.tensor import Tensor
from kiln.vmap import vmap

__all__ = [
    "grad", "grad_and_value", "hessian", "jacfwd", "jacrev", "jvp", "linearize", "stack_module_state", "vjp",
    "vmap",
]  # fmt: skip

Function = Callable[..., Any]
Numbers = int | tuple[int, ...]


def _chosen(op: str, args: Sequence[Any], argnums: Numbers) -> tuple[int, ...]:
    """The positions that `argnums` says, none of them negative."""
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    if not numbers or any(not -len(args) <= n < len(args) for n in numbers):
        raise InvalidValueError(f"argnums {argnums} does not fit {len(args)} arguments", op=op)
    return tuple([k % len(args) for k in numbers])


def _differentiable(op: str, n: int, leaves: Sequence[Any]) -> None:
    for t in leaves:
        if not isinstance(t, TensorBase) or not t.dtype.is_inexact:
            what = str(t.dtype) if isinstance(t, TensorBase) else type(t).__name__
            raise ArgumentError(f"argument {n} must be made of floating-point tensors, not {what}", op=op)


class _Fresh:
    """Arguments, some to be differentiated by: those are new leaves, or behind a view where they have a history. Inside
    another transform they are tensors of its layer, so that the tape of that layer alone leads to them."""

    def __init__(self, op: str, args: Sequence[Any], argnums: Numbers) -> None:
        self.single = isinstance(argnums, int)
        self.args = list(args)
        self.leaves: list[Tensor] = []
        self.trees: list[Tree] = []
        self.history = False
        """Whether an argument has a history that this transform is above."""
        self.deep = False
        """Whether the layers below have one."""
        for n in _chosen(op, args, argnums):
            leaves, tree = flatten(self.args[n])
            _differentiable(op, n, leaves)
            if MODES.layers:
                top = MODES.layers[-1]
                leaves = [t if owned(t, top) else top.lift(t) for t in leaves]
            self.history = self.history or any(t.requires_grad for t in leaves)
            self.deep = self.deep or _deep(leaves)
            new = [F.view(t, t.shape) if t.requires_grad else t.detach().requires_grad_() for t in leaves]
            self.args[n] = unflatten(tree, iter(new))
            self.leaves += new
            self.trees.append(tree)

    def look(self, outputs: Sequence[Any]) -> None:
        """func has returned: find out whether results have another history than that of the leaves."""
        tensors = [t for t in outputs if isinstance(t, TensorBase)]
        self.history = self.history or _leads_elsewhere(tensors, self.leaves)
        self.deep = self.deep or _deep(tensors)
        for t in self.leaves:  # transforms around this one need not care for them
            t._flags |= SPENT

    @property
    def keep(self) -> bool:
        """Whether gradients must be differentiable themselves."""
        return self.history or self.deep

    def packed(self, found: Sequence[Any]) -> Any:
        """One result for each leaf, nested as the arguments are."""
        leaves = iter(found)
        trees = [unflatten(tree, leaves) for tree in self.trees]
        return trees[0] if self.single else tuple(trees)

    def shown(self, x: Any) -> Any:
        """Results without the history that ends at the leaves."""
        return x if self.history else map_tree(lambda t: t.detach() if isinstance(t, Tensor) else t, x)

    def gradients(self, outputs: Sequence[Tensor], seeds: Sequence[Tensor | None], keep: bool) -> list[Tensor]:
        """Gradients of the leaves, zeros where nothing depends on them."""
        pairs = [(t, g) for t, g in zip(outputs, seeds, strict=True) if t.requires_grad]
        made: Sequence[Tensor | None] = [None] * len(self.leaves)
        if pairs:
            made = _backward(
                [t for t, _ in pairs], self.leaves, [g for _, g in pairs], retain_graph=True,
                create_graph=keep, allow_unused=True,
            )  # fmt: skip
        return [creation.zeros_like(x) if g is None else g for g, x in zip(made, self.leaves, strict=True)]


def _deep(tensors: Sequence[Any]) -> bool:
    """Whether what layered tensors hold requires gradients."""
    return any(t.requires_grad for x in tensors for t in list(layers_of(x))[1:])


def _leads_elsewhere(outputs: Sequence[Any], leaves: Sequence[Any]) -> bool:
    """Whether the tape leads from `outputs` to anything but `leaves`."""
    goals = {(id(e[0]), e[1]) for e in map(edge_of, leaves) if e is not None}
    todo = [edge_of(t) for t in outputs if t.requires_grad]
    seen: set[Node] = set()
    while todo:
        edge = resolved(todo.pop())
        if edge is None or (id(edge[0]), edge[1]) in goals:
            continue
        if not isinstance(edge[0], Node):
            if edge[0]._flags & SPENT:
                continue
            return True
        if edge[0] not in seen:
            seen.add(edge[0])
            todo.extend(edge[0].edges)
    return False


def grad_and_value(func: Function, argnums: Numbers = 0, has_aux: bool = False) -> Function:
    """The function that gives (gradient of func by its arguments `argnums`, func's result): func returns one tensor of
    one element, with `has_aux` and something else, which is passed on: (gradient, (result, something))."""

    @functools.wraps(func)
    def run(*args: Any, **kwargs: Any) -> Any:
        with enable_grad():
            fresh = _Fresh("grad", args, argnums)
            returned = func(*fresh.args, **kwargs)
            out, aux = _with_aux("grad", returned, has_aux)
            if not isinstance(out, Tensor) or out.numel() != 1:
                raise GradError("the function must return one tensor of one element", op="grad")
            fresh.look([out])
            found = fresh.gradients([out], [None], fresh.keep)
        result = fresh.packed(fresh.shown(found))
        return (result, (fresh.shown(out), fresh.shown(aux))) if has_aux else (result, fresh.shown(out))

    return run


def _with_aux(op: str, returned: Any, has_aux: bool) -> tuple[Any, Any]:
    if not has_aux:
        return returned, None
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise InvalidValueError("with has_aux the function returns two things", op=op)
    return returned[0], returned[1]


def grad(func: Function, argnums: Numbers = 0, has_aux: bool = False) -> Function:
    """The function that gives the gradient of func by its arguments `argnums` (nested as they are): func returns one
    tensor of one element; with `has_aux` also something else, and then the result is (gradient, something).

    >>> import kiln
    >>> kiln.func.grad(lambda x: (x**3).sum())(kiln.tensor([1.0, 2.0]))
    tensor([ 3., 12.])
    """
    both = grad_and_value(func, argnums, has_aux)

    @functools.wraps(func)
    def run(*args: Any, **kwargs: Any) -> Any:
        found, value = both(*args, **kwargs)
        return (found, value[1]) if has_aux else found

    return run


def vjp(func: Function, *primals: Any, has_aux: bool = False) -> Any:
    """(func(*primals), f) where f(v) is v times the Jacobian, as a tuple with one for each primal (one primal: alone
    in a tuple); v is like the result. With `has_aux` func returns (result, something), which comes last."""
    with enable_grad():
        fresh = _Fresh("vjp", primals, tuple(range(len(primals))))
        out, aux = _with_aux("vjp", func(*fresh.args), has_aux)
        outputs, tree = flatten(out)
        for t in outputs:
            if not isinstance(t, TensorBase):
                raise ArgumentError(f"the function must return tensors, not a {type(t).__name__}", op="vjp")
        fresh.look(outputs)

    def product(*cotangents: Any) -> Any:
        seeds, given = flatten(cotangents[0] if len(cotangents) == 1 else cotangents)
        if given != tree and len(seeds) != len(outputs):
            raise ShapeError("the vectors must be nested as the results", op="vjp")
        keep = fresh.keep or any(s.requires_grad for s in seeds) or _deep(seeds)
        with enable_grad():
            found = fresh.gradients(outputs, seeds, keep)
        own = fresh.history or any(s.requires_grad for s in seeds)
        return fresh.packed(found if own else [t.detach() for t in found])

    return (fresh.shown(out), product, fresh.shown(aux)) if has_aux else (fresh.shown(out), product)


# ---------------------------------------------------------------------------------------- forward mode


def _primals(op: str, primals: Any, tangents: Any) -> tuple[list[Any], Tree, list[Any]]:
    """Leaves of the primals, their structure, and the tangents."""
    if not isinstance(primals, tuple) or not isinstance(tangents, tuple) or len(primals) != len(tangents):
        raise ArgumentError("primals and tangents are tuples of one length", op=op)
    leaves, tree = flatten(primals)
    vectors = flatten(tangents)[0]
    _differentiable(op, 0, leaves)
    for v, t in zip(vectors, leaves, strict=False):
        same_place(op, (t, v))
    if len(vectors) != len(leaves) or any(v.ttype != t.ttype for v, t in zip(vectors, leaves, strict=False)):
        told = [t.ttype for t in (*leaves, *vectors)]
        fix = "one tangent per primal, of its dtype and shape"
        raise ShapeError("the tangents must be like the primals", op=op, operands=told, fix=fix)
    return leaves, tree, vectors


def jvp(
    func: Function, primals: tuple[Any, ...], tangents: tuple[Any, ...], *, strict: bool = False, has_aux: bool = False
) -> Any:
    """(func(*primals), the Jacobian times the tangents), in one call of func: forward mode. With `has_aux` func returns
    (result, something), which comes last. `strict`: GradError where a result does not depend on the primals.

    >>> import kiln
    >>> x = kiln.tensor([1.0, 2.0])
    >>> kiln.func.jvp(lambda x: x**2, (x,), (kiln.ones(2),))
    (tensor([1., 4.]), tensor([2., 4.]))
    """
    leaves, tree, vectors = _primals("jvp", primals, tangents)
    with DualLayer() as layer:
        given = [layer.wrap(t, v) for t, v in zip(leaves, vectors, strict=True)]
        out, aux = _with_aux("jvp", func(*unflatten(tree, iter(given))), has_aux)
        outputs, out_tree = flatten(out)
        _tensors("jvp", outputs)
        opened = [layer.open(t) for t in outputs]
        aux = map_tree(lambda t: layer.open(t)[0] if isinstance(t, TensorBase) else t, aux)
    if strict and any(v is None for _, v in opened):
        raise GradError("a result does not depend on the primals", op="jvp", fix="strict=False gives zeros")
    pushed = [creation.zeros_like(t) if v is None else v for t, v in opened]
    result = (unflatten(out_tree, iter([t for t, _ in opened])), unflatten(out_tree, iter(pushed)))
    return (*result, aux) if has_aux else result


def _tensors(op: str, outputs: Sequence[Any]) -> None:
    for t in outputs:
        if not isinstance(t, TensorBase):
            raise ArgumentError(f"the function must return tensors, not a {type(t).__name__}", op=op)


def linearize(func: Function, *primals: Any) -> tuple[Any, Function]:
    """(func(*primals), f) where f(*tangents) is the Jacobian times the tangents, nested as the result. func is called
    once, here; f carries out what depends on tangents alone, with the bits of `jvp`."""
    leaves, tree = flatten(primals)
    _differentiable("linearize", 0, leaves)
    with Linear() as layer:
        given = [layer.wrap(t, layer.place()) for t in leaves]
        outputs, out_tree = flatten(func(*unflatten(tree, iter(given))))
        _tensors("linearize", outputs)
        opened = [layer.open(t) for t in outputs]

    def product(*tangents: Any) -> Any:
        vectors = _primals("linearize", primals, tangents)[2]
        found = layer.run(vectors)
        made = [None if place is None else found[place] for _, place in opened]
        pushed = [creation.zeros_like(t) if v is None else v for v, (t, _) in zip(made, opened, strict=True)]
        return unflatten(out_tree, iter(pushed))

    return unflatten(out_tree, iter([t for t, _ in opened])), product


# --------------------------------------------------------------------------------------------- Jacobians


def _basis(leaves: Sequence[Any]) -> list[Tensor]:
    """For each leaf [total, *its shape]: row k is the k-th vector of the standard basis of all leaves together."""
    total, start, found = sum(t.numel() for t in leaves), 0, []
    for t in leaves:
        rows = M.narrow(creation.eye(total, dtype=t.dtype, device=t.device), 1, start, t.numel())
        found.append(F.reshape(rows, (total, *t.shape)))
        start += t.numel()
    return found


def jacrev(func: Function, argnums: Numbers = 0, *, has_aux: bool = False, chunk_size: int | None = None) -> Function:
    """The function that gives the Jacobian of func by its arguments `argnums`: for each result a tensor
    [*result's shape, *argument's shape], nested as the results, and in there as the arguments. One call of func, and
    one walk back with the gradients of all elements of the results as a batch, `chunk_size` of them at once.

    >>> import kiln
    >>> kiln.func.jacrev(lambda x: x**2)(kiln.tensor([1.0, 3.0]))
    tensor([[2., 0.],
            [0., 6.]])
    """

    @functools.wraps(func)
    def run(*args: Any, **kwargs: Any) -> Any:
        of_chosen, chosen = _of_chosen("jacrev", func, argnums, args, kwargs)
        found = vjp(of_chosen, *chosen, has_aux=has_aux)
        outputs, out_tree = flatten(found[0])

        def row(*seeds: Any) -> Any:
            return found[1](unflatten(out_tree, iter(seeds)))

        rows, tree = flatten(vmap(row, chunk_size=chunk_size)(*_basis(outputs)) if outputs else ())
        made, start = [], 0
        for t in outputs:
            parts = [M.narrow(r, 0, start, t.numel()) for r in rows]
            shapes = [(*t.shape, *r.shape[1:]) for r in rows]
            blocks = [F.reshape(p, shape) for p, shape in zip(parts, shapes, strict=True)]
            made.append(_nested(unflatten(tree, iter(blocks)), argnums))
            start += t.numel()
        jacobian = unflatten(out_tree, iter(made))
        return (jacobian, found[2]) if has_aux else jacobian

    return run


def _of_chosen(
    op: str, func: Function, argnums: Numbers, args: Sequence[Any], kwargs: dict[str, Any]
) -> tuple[Function, tuple[Any, ...]]:
    """func as a function of its arguments `argnums` alone, and those."""
    numbers = _chosen(op, args, argnums)

    def of_chosen(*given: Any) -> Any:
        full = list(args)
        for n, x in zip(numbers, given, strict=True):
            full[n] = x
        return func(*full, **kwargs)

    return of_chosen, tuple([args[n] for n in numbers])


def _nested(chosen: tuple[Any, ...], argnums: Numbers) -> Any:
    return chosen[0] if isinstance(argnums, int) else chosen


def jacfwd(func: Function, argnums: Numbers = 0, has_aux: bool = False, *, randomness: str = "error") -> Function:
    """As `jacrev`, in forward mode: the tangents of all elements of the arguments are one batch, so this is the cheaper
    one where results have more elements than arguments. `randomness` is `vmap`'s."""

    @functools.wraps(func)
    def run(*args: Any, **kwargs: Any) -> Any:
        of_chosen, chosen = _of_chosen("jacfwd", func, argnums, args, kwargs)
        leaves, tree = flatten(chosen)
        _differentiable("jacfwd", 0, leaves)

        def column(*vectors: Any) -> Any:
            found = jvp(of_chosen, chosen, unflatten(tree, iter(vectors)), has_aux=has_aux)
            return found[1], found[2] if has_aux else ()

        pushed, aux = vmap(column, out_dims=(0, None), randomness=randomness)(*_basis(leaves))
        columns, out_tree = flatten(pushed)
        made = []
        for c in columns:
            rows = M.movedim(c, 0, -1)
            parts = M.split(rows, [t.numel() for t in leaves], -1)
            blocks = [F.reshape(p, (*rows.shape[:-1], *t.shape)) for p, t in zip(parts, leaves, strict=True)]
            made.append(_nested(unflatten(tree, iter(blocks)), argnums))
        jacobian = unflatten(out_tree, iter(made))
        return (jacobian, aux) if has_aux else jacobian

    return run


def hessian(func: Function, argnums: Numbers = 0) -> Function:
    """The function that gives the second derivatives of func: jacfwd(jacrev(func)), forward over reverse."""
    return jacfwd(jacrev(func, argnums), argnums)


def stack_module_state(models: Sequence[Module]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(parameters, buffers) of modules of one kind, each stacked along a new first dimension, for `functional_call` in
    a `vmap`."""
    if not models:
        raise InvalidValueError("there are no modules", op="stack_module_state")
    if any(type(m) is not type(models[0]) for m in models):
        raise InvalidValueError("the modules must be of one class", op="stack_module_state")
    with no_grad():
        parameters = {
            name: F.stack([dict(m.named_parameters())[name].detach() for m in models]).requires_grad_(p.requires_grad)
            for name, p in models[0].named_parameters()
        }
        buffers = {
            name: F.stack([dict(m.named_buffers())[name] for m in models]) for name, _ in models[0].named_buffers()
        }
    return parameters, buffers
