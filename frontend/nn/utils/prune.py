"""Pruning: a parameter becomes `{name}_orig`, and what the layer uses is that times a mask of zeros and ones, the
buffer `{name}_mask`. Pruned again, only what is left can go.

The product is computed each time that it is read. (PyTorch computes it in a hook before each call.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, TypeVar, cast

from kiln import functional as F
from kiln.autograd import no_grad
from kiln.creation import ones_like
from kiln.errors import ArgumentError, InvalidValueError, ShapeError
from kiln.nn.module import Module
from kiln.nn.utils.computed import compute, parameter, plain_again, readers
from kiln.nn.utils.convert_parameters import parameters_to_vector
from kiln.random import rand
from kiln.reductions import vector_norm
from kiln.sorting import topk
from kiln.tensor import Tensor

__all__ = [
    "BasePruningMethod", "CustomFromMask", "Identity", "L1Unstructured", "LnStructured", "PruningContainer",
    "RandomStructured", "RandomUnstructured", "custom_from_mask", "global_unstructured", "identity", "is_pruned",
    "l1_unstructured", "ln_structured", "random_structured", "random_unstructured", "remove",
]  # fmt: skip

AnyModule = TypeVar("AnyModule", bound=Module)
Parameters = Iterable[tuple[Module, str]]


class BasePruningMethod:
    """How to prune. A subclass defines `compute_mask`, and `PRUNING_TYPE`: what of a pruned tensor it is shown when it
    prunes further, "unstructured" (what is left, as a vector), "structured" (the slices of dimension `dim` that have
    something left) or "global" (all)."""

    PRUNING_TYPE: ClassVar[str]
    _tensor_name: str | None = None

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The new mask, by the importances `t`; `default_mask` is the one so far."""
        raise NotImplementedError(f"{type(self).__name__} does not define compute_mask()")

    def apply_mask(self, module: Module) -> Tensor:
        """The parameter times its mask."""
        orig: Tensor = getattr(module, f"{self._named()}_orig")
        return F.mul(getattr(module, f"{self._named()}_mask").to(orig.dtype), orig)

    __call__ = apply_mask

    def _named(self) -> str:
        if self._tensor_name is None:
            raise InvalidValueError("no parameter is pruned yet", op=type(self).__name__)
        return self._tensor_name

    @classmethod
    def apply(
        cls, module: Module, name: str, *args: Any, importance_scores: Tensor | None = None, **kwargs: Any
    ) -> BasePruningMethod:
        """Prune the parameter `name` by cls(*args, **kwargs), by `importance_scores` (of its shape) or else its own
        elements. Returns the method, or a `PruningContainer` of it and those before."""
        before, method = readers(module).get(name), cls(*args, **kwargs)
        method._tensor_name = name
        values = parameter("prune", module, name) if before is None else cast("Tensor", getattr(module, name))
        scores = _scored(values, importance_scores)
        if before is None:
            with no_grad():
                mask = method.compute_mask(scores.detach(), ones_like(values))
            delattr(module, name)
            module.register_parameter(f"{name}_orig", cast("Any", values))
        elif isinstance(before, BasePruningMethod):
            held = before if isinstance(before, PruningContainer) else PruningContainer(before)
            with no_grad():
                mask = _further(method, scores.detach(), getattr(module, f"{name}_mask"))
            held.add_pruning_method(method)
            method = cast("Any", held)
        else:
            raise InvalidValueError(f"{name!r} is normalised", op="prune", fix="remove the normalisation before")
        module.register_buffer(f"{name}_mask", mask)
        compute(module, name, method)
        return method

    def prune(self, t: Tensor, default_mask: Tensor | None = None, importance_scores: Tensor | None = None) -> Tensor:
        """The tensor times the mask of this method."""
        mask = ones_like(t) if default_mask is None else default_mask
        return F.mul(t, self.compute_mask(_scored(t, importance_scores), mask))

    def remove(self, module: Module) -> None:
        """Make the parameter a plain one, with zeros where it was pruned."""
        name = self._named()
        with no_grad():
            value, orig = plain_again("remove", module, name), parameter("remove", module, f"{name}_orig")
            orig.copy_(value)
        delattr(module, f"{name}_orig")
        delattr(module, f"{name}_mask")
        module.register_parameter(name, cast("Any", orig))


def _scored(t: Tensor, scores: Tensor | None) -> Tensor:
    if scores is None:
        return t
    if scores.shape != t.shape:
        message = "importance_scores must have the shape of what is pruned"
        raise ShapeError(message, op="prune", operands=[t.ttype, scores.ttype])
    return scores


def _further(method: BasePruningMethod, t: Tensor, mask: Tensor) -> Tensor:
    """The mask of a method for what `mask` leaves."""
    kind = method.PRUNING_TYPE
    index: Any = (slice(None),) * t.ndim
    if kind == "unstructured":
        index = F.eq(mask, 1)
    elif kind == "structured":
        dim = F.dim_index("prune", method.dim, t.ndim)  # type: ignore[attr-defined]
        others = tuple([d for d in range(t.ndim) if d != dim])
        left = F.ne(F.sum(mask, others) if others else mask, 0)
        index = (*index[:dim], left, *index[dim + 1 :])
    elif kind != "global":
        known = '"unstructured", "structured" or "global"'
        raise InvalidValueError(f"PRUNING_TYPE must be {known}, got {kind!r}", op=type(method).__name__)
    found = mask.to(t.dtype).clone()
    found[index] = method.compute_mask(t[index], mask[index]).to(t.dtype)
    return found


class PruningContainer(BasePruningMethod):
    """Methods that prune one parameter in turn."""

    def __init__(self, *methods: BasePruningMethod) -> None:
        self._pruning_methods: tuple[BasePruningMethod, ...] = ()
        if methods:
            self._tensor_name = methods[0]._tensor_name
        for method in methods:
            self.add_pruning_method(method)

    def add_pruning_method(self, method: BasePruningMethod | None) -> None:
        """One more; it must be of the same parameter."""
        if method is None:
            return
        if not isinstance(method, BasePruningMethod):
            raise ArgumentError(f"{type(method).__name__} is no BasePruningMethod", op="add_pruning_method")
        if method._tensor_name != self._tensor_name:
            message = f"the methods prune {self._tensor_name!r}, this one {method._tensor_name!r}"
            raise InvalidValueError(message, op="add_pruning_method")
        self._pruning_methods += (method,)

    def __len__(self) -> int:
        return len(self._pruning_methods)

    def __iter__(self) -> Iterator[BasePruningMethod]:
        return iter(self._pruning_methods)

    def __getitem__(self, idx: int) -> BasePruningMethod:
        return self._pruning_methods[idx]

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The mask of the last method, for what is left."""
        return _further(self._pruning_methods[-1], t, default_mask)


# ---------------------------------------------------------------------------------------------- methods


class _Amount(BasePruningMethod):
    """Prunes `amount`: so many, or such a part."""

    def __init__(self, amount: int | float) -> None:
        op = type(self).__name__
        if isinstance(amount, bool) or not isinstance(amount, (int, float)):
            raise ArgumentError(f"amount must be a number, got {amount!r}", op=op)
        if amount < 0 or (isinstance(amount, float) and amount > 1):
            raise InvalidValueError(f"amount must be a number of elements or a part of them, got {amount}", op=op)
        self.amount = amount

    def _count(self, among: int) -> int:
        count = self.amount if isinstance(self.amount, int) else round(self.amount * among)
        if count > among:
            raise InvalidValueError(f"{count} can't be pruned of {among}", op=type(self).__name__)
        return count


class _Structured(_Amount):
    """Prunes slices of dimension `dim`."""

    PRUNING_TYPE = "structured"

    def __init__(self, amount: int | float, dim: int = -1) -> None:
        super().__init__(amount)
        self.dim = dim

    def _kept(self, t: Tensor, default_mask: Tensor, scores: Tensor, count: int) -> Tensor:
        """`default_mask` without all but the `count` slices of the highest scores."""
        mask = t.new_zeros(t.shape)
        dim = F.dim_index(type(self).__name__, self.dim, t.ndim)
        index: list[Any] = [slice(None)] * t.ndim
        index[dim] = topk(scores, count).indices
        mask[tuple(index)] = 1
        return F.mul(mask, default_mask.to(mask.dtype))

    def _slices(self, t: Tensor) -> int:
        if t.ndim < 2:
            raise ShapeError("slices need two dimensions or more", op=type(self).__name__, operands=[t.ttype])
        return t.shape[F.dim_index(type(self).__name__, self.dim, t.ndim)]


class Identity(BasePruningMethod):
    """Prunes nothing: makes a mask of ones."""

    PRUNING_TYPE = "unstructured"

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        return default_mask


class RandomUnstructured(_Amount):
    """Prunes elements at random."""

    PRUNING_TYPE = "unstructured"

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        return _without(default_mask, rand(t.shape, device=t.device), self._count(t.numel()))


class L1Unstructured(_Amount):
    """Prunes the elements of the smallest magnitudes."""

    PRUNING_TYPE = "unstructured"

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        return _without(default_mask, F.abs(t), self._count(t.numel()))


def _without(mask: Tensor, scores: Tensor, count: int) -> Tensor:
    """`mask` without the `count` elements of the lowest scores."""
    flat = F.reshape(mask, (-1,)).clone()
    if count:
        flat[topk(F.reshape(scores, (-1,)), count, largest=False).indices] = 0
    return F.reshape(flat, mask.shape)


class RandomStructured(_Structured):
    """Prunes slices at random."""

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        slices = self._slices(t)
        count = self._count(slices)
        return self._kept(t, default_mask, rand((slices,), device=t.device), slices - count) if count else default_mask


class LnStructured(_Structured):
    """Prunes the slices of the smallest norms of order `n`."""

    def __init__(self, amount: int | float, n: float, dim: int = -1) -> None:
        super().__init__(amount, dim)
        self.n = n

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        slices = self._slices(t)
        count = self._count(slices)
        others = [d for d in range(t.ndim) if d != self.dim % t.ndim]
        scores = vector_norm(t, float(self.n), others)
        return self._kept(t, default_mask, scores, slices - count) if count else default_mask


class CustomFromMask(BasePruningMethod):
    """Prunes what a given mask says."""

    PRUNING_TYPE = "global"

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        if self.mask.shape != default_mask.shape:
            types = [self.mask.ttype, default_mask.ttype]
            raise ShapeError("the mask must have the shape of what is pruned", op="CustomFromMask", operands=types)
        return F.mul(default_mask, self.mask.to(default_mask.dtype))


# -------------------------------------------------------------------------------------------- functions


def identity(module: AnyModule, name: str) -> AnyModule:
    """Prune nothing of the parameter: give it a mask of ones."""
    Identity.apply(module, name)
    return module


def random_unstructured(module: AnyModule, name: str, amount: int | float) -> AnyModule:
    """Prune `amount` elements of the parameter (or that part of them) at random."""
    RandomUnstructured.apply(module, name, amount)
    return module


def l1_unstructured(
    module: AnyModule, name: str, amount: int | float, importance_scores: Tensor | None = None
) -> AnyModule:
    """Prune `amount` elements of the parameter (or that part of them): those of the smallest magnitudes."""
    L1Unstructured.apply(module, name, amount, importance_scores=importance_scores)
    return module


def random_structured(module: AnyModule, name: str, amount: int | float, dim: int) -> AnyModule:
    """Prune `amount` slices of dimension `dim` of the parameter (or that part of them) at random."""
    RandomStructured.apply(module, name, amount, dim)
    return module


def ln_structured(
    module: AnyModule,
    name: str,
    amount: int | float,
    n: float,
    dim: int,
    importance_scores: Tensor | None = None,
) -> AnyModule:
    """Prune `amount` slices of dimension `dim` of the parameter (or that part of them): those of the smallest norms of
    order `n`."""
    LnStructured.apply(module, name, amount, n, dim, importance_scores=importance_scores)
    return module


def custom_from_mask(module: AnyModule, name: str, mask: Tensor) -> AnyModule:
    """Prune what the mask, of the parameter's shape, is 0 for."""
    CustomFromMask.apply(module, name, mask)
    return module


def global_unstructured(
    parameters: Parameters,
    pruning_method: type[BasePruningMethod],
    importance_scores: dict[tuple[Module, str], Tensor] | None = None,
    **kwargs: Any,
) -> None:
    """Prune several parameters, pairs of a module and a name, as if they were one, by pruning_method(**kwargs), which
    must be "unstructured". `importance_scores` holds those of some of them."""
    if not isinstance(parameters, Iterable):
        raise ArgumentError("parameters must be pairs of a module and a name", op="global_unstructured")
    pairs, scores = list(parameters), {} if importance_scores is None else importance_scores
    if not isinstance(scores, dict):
        raise ArgumentError("importance_scores must be a dict", op="global_unstructured")
    method = pruning_method(**kwargs)
    if method.PRUNING_TYPE != "unstructured":
        message = f'takes "unstructured" methods only, got {pruning_method.__name__}'
        raise ArgumentError(message, op="global_unstructured")
    values: list[Tensor] = [getattr(module, name) for module, name in pairs]
    with no_grad():
        given = [_scored(v, scores.get(pair)) for pair, v in zip(pairs, values, strict=True)]
        masks = [getattr(m, f"{name}_mask", ones_like(v)) for (m, name), v in zip(pairs, values, strict=True)]
        mask = _further(method, parameters_to_vector(given), parameters_to_vector(masks))
    start = 0
    for (module, name), value in zip(pairs, values, strict=True):
        end = start + value.numel()
        custom_from_mask(module, name, F.reshape(mask[start:end], value.shape))
        start = end


def remove(module: AnyModule, name: str) -> AnyModule:
    """Make a pruned parameter a plain one, with zeros where it was pruned. InvalidValueError if it is not pruned."""
    method = readers(module).get(name)
    if not isinstance(method, BasePruningMethod):
        raise InvalidValueError(f"{name!r} of {type(module).__name__} is not pruned", op="remove")
    method.remove(module)
    return module


def is_pruned(module: Module) -> bool:
    """Whether any parameter of the module, or of one in it, is pruned."""
    found = (read for m in module.modules() for read in readers(m).values())
    return any(isinstance(read, BasePruningMethod) for read in found)
