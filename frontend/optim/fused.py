"""A step as one native call per parameter, on a GPU as one for many (docs/decisions/0010).

What an optimiser of kiln's own does to a parameter is elementwise arithmetic on it, its gradient and its state, and on
a few single numbers. So it is sketched once, for tensors of a few elements; the graph, with its size made symbolic,
compiles to one program that serves parameters of every size. Numbers that schedules change are read from memory, where
`groups.py` keeps them. The results are those of the ops one by one, bit for bit.

What does not fit (parameters that are not contiguous, tensors that share memory, an `update` of the user's) takes the
ops one by one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from kiln import dispatch
from kiln.base import MODES, READONLY, TensorBase, layout_of
from kiln.ir.types import CPU, Device, Sym
from kiln.optim.groups import Group
from kiln.sketch import Sketch, Update, generalised, written

if TYPE_CHECKING:
    from kiln.optim.optimizer import Optimizer

F = TypeVar("F", bound=Callable[..., Any])

_FEW: Final = 5
"""Elements of the tensors that are sketched with."""
_NUMBERS: Final = (bool, int, float, str, type(None))
_MAX_LAUNCHES: Final = 16384
_MOST_TOGETHER: Final = 32
"""Parameters that are updated by one program, and by as many launches as one alone; there are as many programs at
most, whatever models there are."""
_MAX_VARIANTS: Final = 16
"""Programs that differ in options alone: where a number changes all the time, ops one by one are quicker."""

_elementwise: set[Callable[..., Any]] = set()
_programs: dict[tuple[Any, ...], dict[tuple[Any, ...], Update]] = {}


def elementwise(update: F) -> F:
    """Marks an `update` that does elementwise arithmetic alone, and reads nothing but its arguments' types and the
    options that are numbers."""
    _elementwise.add(update)
    return update


class Steps:
    """The steps of one group while its options stay what they are (but for scheduled numbers), on one target."""

    def __init__(self, optimizer: Optimizer, group: Group) -> None:
        self.made_for = (group.stamp, dispatch.target())
        self.optimizer = optimizer
        self.options = {k: v for k, v in group.traced().items() if k not in ("params", "param_names")}
        parts = [x for v in self.options.values() for x in (v if isinstance(v, tuple) else (v,))]
        self.scalars = [x for x in parts if _is_tensor(x)]
        known = all(_is_known(v) for v in self.options.values())
        self.possible = known and getattr(optimizer.update, "__func__", None) in _elementwise
        self.fixed = tuple([(k, _told(v)) for k, v in self.options.items()]) if self.possible else ()
        self.near: dict[Device, list[Any]] = {}
        """The numbers, on the devices that parameters are on, for one step."""
        self._launches: dict[tuple[Any, ...], tuple[Update, tuple[int, ...]] | None] = {}
        self._waiting: dict[Update, list[tuple[Sequence[Any], tuple[int, ...]]]] = {}
        """What is to be updated on GPUs, by `finish`: for each the tensors of its own, and its size."""

    def fit(self, group: Group) -> bool:
        """Whether the group is still the one that they were made for."""
        return self.made_for == (group.stamp, dispatch.target())

    def __reduce__(self) -> Any:
        """Copies of a group learn it anew."""
        return type(None), ()

    def take(self, p: Any, grad: Any, state: Mapping[str, Any]) -> bool:
        """Update a parameter, on a GPU when all are known (`finish`); False, and nothing is done, when that takes the
        ops one by one."""
        tensors = [p, grad, *state.values(), *self.scalars]
        key = (*state, *[getattr(t, "_layout", None) for t in tensors])
        try:
            launch = self._launches[key]
        except KeyError:
            if self.optimizer.follow(p, self.options):
                return self.take(p, grad, self.optimizer.state[p])
            if len(self._launches) >= _MAX_LAUNCHES:
                self._launches.clear()
            launch = self._launches[key] = self._prepare(p, tensors, tuple(state))
        if launch is None:
            return False
        flags = 0
        for t in tensors:
            flags |= t._flags
        if flags & READONLY or not _apart(tensors):
            return False
        update, sizes = launch
        if p._layout.device is CPU:
            update.run(tensors, sizes)
        else:
            own = tensors[: len(tensors) - len(self.scalars)]
            self._waiting.setdefault(update, []).append((own, sizes))
        return True

    def finish(self) -> None:
        """Update what was taken and waits."""
        waiting, self._waiting = self._waiting, {}
        for update, parts in waiting.items():
            near = self.near.get(update.device)
            if near is None:
                near = self.near[update.device] = dispatch.brought(self.scalars, update.device)
            most = _MOST_TOGETHER if _disjoint([t for own, _ in parts for t in own]) else 1
            for start in range(0, len(parts), most):
                chosen = parts[start : start + most]
                tensors = [t for own, _ in chosen for t in own]
                many = update.many(len(chosen[0][0]), len(chosen))
                many.run([*tensors, *near], [n for _, sizes in chosen for n in sizes])

    def _prepare(self, p: Any, tensors: Sequence[Any], names: tuple[str, ...]) -> tuple[Update, tuple[int, ...]] | None:
        """The program for tensors of these layouts, with its sizes; None where there can be none."""
        if not all(map(_is_tensor, tensors)):
            return None
        shape, numel = p._layout.shape, p._layout.numel
        device, own = p._layout.device, tensors[: len(tensors) - len(self.scalars)]
        fits = all(t._layout.contiguous and t._layout.shape in (shape, ()) for t in tensors)
        fits = fits and all(t._layout.device is device for t in own)
        fits = fits and all(t._layout.device in (device, CPU) for t in self.scalars)
        if not numel or not fits or any(t._layout.dtype.kind != "float" for t in tensors):
            return None
        kinds = tuple([(t._layout.dtype, t._layout.shape == ()) for t in tensors])
        about = (
            type(self.optimizer).update,
            names,
            kinds,
            MODES.default_dtype,
            dispatch.target(),
            device,
            MODES.autocast,
        )
        variants = _programs.setdefault(about, {})
        update = variants.get(self.fixed)
        if update is None:
            if len(variants) >= _MAX_VARIANTS:
                return None
            update = variants[self.fixed] = self._sketch(kinds, names, device)
        return update, () if shape == () else (numel,)

    def _sketch(self, kinds: Sequence[tuple[Any, bool]], names: tuple[str, ...], device: Device) -> Update:
        """Sketch an update of tensors of these (dtype, whether a single number), and compile it."""
        made = [dispatch.empty(layout_of(dtype, () if single else (_FEW,), None, device)) for dtype, single in kinds]
        p, grad, rest = made[0], made[1], iter(made[2:])
        state = dict(zip(names, rest, strict=False))
        stand_in = dict(zip(map(id, self.scalars), made[2 + len(names) :], strict=True))
        options = {k: _replaced(v, stand_in) for k, v in self.options.items()}
        with Sketch(f"{type(self.optimizer).__name__}_step", made) as sketch:
            self.optimizer.update(p, -grad if options.get("maximize") else grad, state, options)
            graph = generalised(sketch.finish([]), lambda d: Sym("n") if d == _FEW else d)
        return Update(graph, written(made), device)


def _is_tensor(x: Any) -> bool:
    return isinstance(x, TensorBase)


def _is_known(option: Any) -> bool:
    """Whether what an option holds can't change by itself, or is a tensor."""
    if isinstance(option, tuple):
        return all(map(_is_known, option))
    return isinstance(option, _NUMBERS) or _is_tensor(option)


def _told(option: Any) -> Any:
    """What tells an option from others; tensors all alike, since their content is read in every step."""
    if isinstance(option, tuple):
        return tuple(map(_told, option))
    return TensorBase if _is_tensor(option) else (type(option), repr(option))


def _replaced(option: Any, stand_in: Mapping[int, Any]) -> Any:
    """An option with stand-ins for its tensors."""
    if isinstance(option, tuple):
        return tuple([_replaced(x, stand_in) for x in option])
    return stand_in[id(option)] if _is_tensor(option) else option


def _apart(tensors: Sequence[Any]) -> bool:
    """Whether no two tensors share a buffer, or memory."""
    buffers = [t._buffer for t in tensors]
    if len(set(buffers)) != len(buffers):
        return False
    if all(b.owner is None for b in buffers):
        return True  # blocks of our allocator never overlap
    spans = sorted([(b.ptr, b.ptr + b.nbytes) for b in buffers])
    return all(a[1] <= b[0] for a, b in itertools.pairwise(spans))


def _disjoint(tensors: Sequence[Any]) -> bool:
    """Whether no two contiguous tensors share memory; they may lie in one buffer."""
    if _apart(tensors):
        return True
    spans = sorted([(t._ptr, t._ptr + t._layout.nbytes) for t in tensors])
    return all(a[1] <= b[0] for a, b in itertools.pairwise(spans))
