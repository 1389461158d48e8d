"""Functions that make functions: derivatives and batching, under the names of torch.func.

Derivatives go over the tape, so these compose with each other and with everything that has gradients. Arguments may be
nested in lists, tuples and dicts. `vmap` calls its function once for each element of the batch and stacks the results.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from kiln import creation
from kiln import functional as F
from kiln import movement as M
from kiln.autograd import functional as AF
from kiln.autograd.backward import grad as _backward
from kiln.autograd.grad_mode import enable_grad, no_grad
from kiln.errors import ArgumentError, GradError, InvalidValueError, ShapeError
from kiln.nn.module import Module
from kiln.pytree import Tree, flatten, map_tree, unflatten
from kiln.tensor import Tensor

__all__ = ["grad", "grad_and_value", "hessian", "jacfwd", "jacrev", "jvp", "stack_module_state", "vjp", "vmap"]

Function = Callable[..., Any]
Numbers = int | tuple[int, ...]


class _Fresh:
    """Arguments, some to be differentiated by: those are new leaves, or behind a view where they have a history."""

    def __init__(self, op: str, args: Sequence[Any], argnums: Numbers) -> None:
        self.single = isinstance(argnums, int)
        numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)
        if not numbers or any(not -len(args) <= n < len(args) for n in numbers):
            raise InvalidValueError(f"argnums {argnums} does not fit {len(args)} arguments", op=op)
        self.args = list(args)
        self.leaves: list[Tensor] = []
        self.trees: list[Tree] = []
        self.history = False
        for n in (k % len(args) for k in numbers):
            leaves, tree = flatten(self.args[n])
            for t in leaves:
                if not isinstance(t, Tensor) or not t.dtype.is_floating_point:
                    raise ArgumentError(f"argument {n} must be made of floating-point tensors", op=op)
                self.history = self.history or t.requires_grad
            new = [F.view(t, t.shape) if t.requires_grad else t.detach().requires_grad_() for t in leaves]
            self.args[n] = unflatten(tree, iter(new))
            self.leaves += new
            self.trees.append(tree)

    def packed(self, found: Sequence[Any]) -> Any:
        """One result for each leaf, nested as the arguments are."""
        leaves = iter(found)
        trees = [unflatten(tree, leaves) for tree in self.trees]
        return trees[0] if self.single else tuple(trees)

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


def _without_history(x: Any) -> Any:
    return map_tree(lambda t: t.detach() if isinstance(t, Tensor) else t, x)


def grad_and_value(func: Function, argnums: Numbers = 0, has_aux: bool = False) -> Function:
    """The function that gives (gradient of func by its arguments `argnums`, func's result): func returns one tensor of
    one element, with `has_aux` and something else, which is passed on: (gradient, (result, something))."""

    @functools.wraps(func)
    def run(*args: Any, **kwargs: Any) -> Any:
        with enable_grad():
            fresh = _Fresh("grad", args, argnums)
            returned = func(*fresh.args, **kwargs)
            out, aux = returned if has_aux else (returned, None)
            if not isinstance(out, Tensor) or out.numel() != 1:
                raise GradError("the function must return one tensor of one element", op="grad")
            found = fresh.gradients([out], [None], fresh.history)
        if not fresh.history:
            out, aux = out.detach(), _without_history(aux)
        return fresh.packed(found), (out, aux) if has_aux else out

    return run


def grad(func: Function, argnums: Numbers = 0, has_aux: bool = False) -> Function:
    """The function that gives the gradient of func by its arguments `argnums` (nested as they are): func returns one
    tensor of one element; with `has_aux` also something else, and then the result is (gradient, something)."""
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
        returned = func(*fresh.args)
        out, aux = returned if has_aux else (returned, None)
        outputs, tree = flatten(out)

    def product(*cotangents: Any) -> Any:
        seeds, given = flatten(cotangents[0] if len(cotangents) == 1 else cotangents)
        if given != tree and not len(cotangents) == len(outputs):
            raise ShapeError("the vectors must be nested as the results", op="vjp")
        keep = fresh.history or any(s.requires_grad for s in seeds)
        return fresh.packed(fresh.gradients(outputs, seeds, keep))

    shown = out if fresh.history else _without_history(out)
    return (shown, product, aux) if has_aux else (shown, product)


def jvp(func: Function, primals: tuple[Any, ...], tangents: tuple[Any, ...], *, has_aux: bool = False) -> Any:
    """(func(*primals), the Jacobian times the tangents), by two gradients: the product is linear in the vector of
    `vjp`. With `has_aux` func returns (result, something), which comes last."""
    history = any(isinstance(t, Tensor) and t.requires_grad for t in flatten((primals, tangents))[0])
    with enable_grad():
        fresh = _Fresh("jvp", primals, tuple(range(len(primals))))
        returned = func(*fresh.args)
        out, aux = returned if has_aux else (returned, None)
        outputs, tree = flatten(out)
        seeds = [creation.zeros_like(t, requires_grad=True) for t in outputs]
        linear = fresh.gradients(outputs, seeds, True)
        vectors = flatten(tuple(tangents))[0]
        if [v.shape for v in vectors] != [t.shape for t in linear]:
            raise ShapeError("the tangents must be like the primals", op="jvp")
        pairs = [(t, v) for t, v in zip(linear, vectors, strict=True) if t.requires_grad]
        made: Sequence[Tensor | None] = [None] * len(seeds)
        if pairs:
            made = _backward(
                [t for t, _ in pairs], seeds, [v for _, v in pairs], create_graph=history, allow_unused=True
            )
    pushed = [creation.zeros_like(t) if g is None else g for g, t in zip(made, outputs, strict=True)]
    shown = out if history else _without_history(out)
    result = (shown, unflatten(tree, iter(pushed)))
    return (*result, aux) if has_aux else result


def _jacobian(op: str, func: Function, argnums: Numbers, has_aux: bool) -> Function:
    @functools.wraps(func)
    def run(*args: Any, **kwargs: Any) -> Any:
        fresh_numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)
        chosen = [args[n] for n in fresh_numbers]
        aux: list[Any] = []

        def of_chosen(*given: Any) -> Any:
            full = list(args)
            for n, x in zip(fresh_numbers, given, strict=True):
                full[n] = x
            returned = func(*full, **kwargs)
            if has_aux:
                aux.append(returned[1])
                return returned[0]
            return returned

        for x in chosen:
            if not isinstance(x, Tensor):
                raise ArgumentError(f"expected tensors, got {type(x).__name__}", op=op)
        history = any(x.requires_grad for x in chosen)
        inputs: Any = chosen[0] if isinstance(argnums, int) else tuple(chosen)
        found = AF.jacobian(of_chosen, inputs, create_graph=history)
        return (found, _without_history(aux[0])) if has_aux else found

    return run


def jacrev(func: Function, argnums: Numbers = 0, *, has_aux: bool = False, chunk_size: int | None = None) -> Function:
    """The function that gives the Jacobian of func by its arguments `argnums` (tensors), one backward for each element
    of the result; `chunk_size` changes nothing."""
    del chunk_size
    return _jacobian("jacrev", func, argnums, has_aux)


def jacfwd(func: Function, argnums: Numbers = 0, has_aux: bool = False, *, randomness: str = "error") -> Function:
    """As `jacrev`."""
    del randomness
    return _jacobian("jacfwd", func, argnums, has_aux)


def hessian(func: Function, argnums: Numbers = 0) -> Function:
    """The function that gives the second derivatives: jacrev(jacrev(func))."""

    def of_leaves(*args: Any, **kwargs: Any) -> Any:
        return jacrev(func, argnums)(*args, **kwargs)

    @functools.wraps(func)
    def run(*args: Any, **kwargs: Any) -> Any:
        return jacrev(of_leaves, argnums)(*args, **kwargs)

    return run


# ------------------------------------------------------------------------------------------- batching


def _axes(in_dims: Any, args: tuple[Any, ...]) -> list[int | None]:
    """For each leaf of the arguments the dimension to take apart."""
    dims = (in_dims,) * len(args) if in_dims is None or isinstance(in_dims, int) else tuple(in_dims)
    if len(dims) != len(args):
        raise InvalidValueError(f"in_dims {in_dims} does not fit {len(args)} arguments", op="vmap")
    found: list[int | None] = []
    for d, x in zip(dims, args, strict=True):
        leaves = flatten(x)[0]
        if d is None or isinstance(d, int):
            found += [d if isinstance(t, Tensor) else None for t in leaves]
        else:
            nested = flatten(d)[0]
            if len(nested) != len(leaves):
                raise InvalidValueError("in_dims are not nested as the arguments", op="vmap")
            found += nested
    return found


def vmap(
    func: Function,
    in_dims: Any = 0,
    out_dims: Any = 0,
    randomness: str = "error",
    *,
    chunk_size: int | None = None,
) -> Function:
    """func of each element of a batch: dimension `in_dims` of the arguments (an int, or one for each; None passes an
    argument whole) is taken apart, the results are stacked along `out_dims`. `randomness` and `chunk_size` change
    nothing: the function is called once for each element, in order, and draws anew each time."""
    del randomness, chunk_size

    @functools.wraps(func)
    def run(*args: Any, **kwargs: Any) -> Any:
        leaves, tree = flatten(args)
        axes = _axes(in_dims, args)
        counts = {t.shape[F.dim_index("vmap", d, t.ndim)] for t, d in zip(leaves, axes, strict=True) if d is not None}
        if len(counts) != 1:
            raise ShapeError(f"batches must have one size, there are {sorted(counts)}", op="vmap")
        (count,) = counts
        if not count:
            raise ShapeError("the batch is empty", op="vmap")
        parts = [M.unbind(t, d) if d is not None else None for t, d in zip(leaves, axes, strict=True)]
        results = []
        for k in range(count):
            element = [t if p is None else p[k] for t, p in zip(leaves, parts, strict=True)]
            results.append(func(*unflatten(tree, iter(element)), **kwargs))
        return _stacked(results, out_dims)

    return run


def _stacked(results: Sequence[Any], out_dims: Any) -> Any:
    columns = [flatten(r) for r in results]
    tree = columns[0][1]
    dims = [out_dims] * len(columns[0][0]) if isinstance(out_dims, int) or out_dims is None else list(out_dims)
    if len(dims) != len(columns[0][0]):
        raise InvalidValueError(f"out_dims {out_dims} does not fit the results", op="vmap")
    made = []
    for j, d in enumerate(dims):
        each = [leaves[j] for leaves, _ in columns]
        if not all(isinstance(x, Tensor) for x in each):
            raise ArgumentError("the function must return tensors", op="vmap")
        made.append(each[0] if d is None else F.stack(each, d))
    return unflatten(tree, iter(made))


def stack_module_state(models: Sequence[Module]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(parameters, buffers) of modules of one kind, each stacked along a new first dimension, for `functional_call` in
    a `vmap`."""
    if not models:
        raise InvalidValueError("there are no modules", op="stack_module_state")
    with no_grad():
        parameters = {
            name: F.stack([dict(m.named_parameters())[name].detach() for m in models]).requires_grad_(p.requires_grad)
            for name, p in models[0].named_parameters()
        }
        buffers = {
            name: F.stack([dict(m.named_buffers())[name] for m in models]) for name, _ in models[0].named_buffers()
        }
    return parameters, buffers
