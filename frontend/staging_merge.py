"""What branches leave in variables, joined: tensors of one type, and numbers of one kind, become results of the
operation; what is the same object in both stays that; anything else can't be staged."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kiln import dispatch
from kiln.base import MODES, TensorBase, layout_of
from kiln.capture import Capture, Entangled, entangle
from kiln.control_capture import Inner
from kiln.convert import UNBOUND, Site
from kiln.guards import same
from kiln.ir.graph import Attrs, Value
from kiln.ir.ops.base import OPS
from kiln.ir.types import CPU, Device, DType, bool_, contiguous_strides
from kiln.pytree import Tree, flatten, unflatten
from kiln.staging_numbers import DTYPES, Number, constant, fits, like
from kiln.staging_text import Text, paled
from kiln.staging_trial import Unstaged
from kiln.texts import Chosen, Part, moved
from kiln.traced import Entry, Storage

VALUE: Final = "__value__"
"""The variable that holds what a function will return (`convert/jumps.py`)."""
SAME: Final = -1
"""In place of a result's number: the object is what it is in all branches."""
_TEXT: Final = -2
"""From here downwards: text that differs, by its number."""


@dataclass
class Slot:
    """One variable: its structure, and for each leaf which result it is. Without a structure, and where a leaf is no
    result, it is what it was when it was tried: `kept`, or an item of that."""

    tree: Tree | None
    leaves: list[int]
    kept: Any


class Joined:
    """Variables after a staged region, and the leaves that are results of the operation, as each branch has them.
    `outside`: the ids of containers that were there before. `owns`, of a choice of two: whether of a branch, by number,
    a tensor is its own; then text may differ, too."""

    def __init__(self, outside: Container[int], owns: Callable[[int, Any], bool] | None = None) -> None:
        self.slots: list[Slot] = []
        self.results: list[tuple[Any, ...]] = []
        self._numbers: dict[tuple[int, ...], int] = {}
        self.texts: list[tuple[int, tuple[Part, ...], tuple[Part, ...]]] = []
        """Text that differs: which result says that it is the first, and both, with numbers of results in place of
        tensors of the branches."""
        self.taken = True
        """Whether this very call takes the first branch."""
        self._owns = owns
        self._flag: int | None = None
        self._outside = outside
        self._containers: set[int] = set()

    def add(self, name: str, values: Sequence[Any]) -> None:
        """A variable that has these values in the branches."""
        if all(v is values[0] for v in values):
            self.slots.append(Slot(None, [], values[0]))
            return
        told = "what is returned" if name == VALUE else name
        known = [v for v in values if v is not UNBOUND]
        if name == VALUE:  # read only where a `return` has set it
            values = [unset_like(known[0]) if v is UNBOUND else v for v in values]
        elif len(known) < len(values):
            raise Unstaged(f"{told} is bound in one branch only, and may be read later")
        parts = [self._flat(told, v) for v in values]
        if any(tree != parts[0][1] for _, tree in parts):
            raise Unstaged(f"{told} is of another structure in each branch")
        leaves = [self._leaf(told, each) for each in zip(*(part[0] for part in parts), strict=True)]
        self.slots.append(Slot(parts[0][1], leaves, parts[0][0]))

    def _flat(self, name: str, value: Any) -> tuple[list[Any], Tree]:
        """Lists and dicts that a branch made, and that are known by one name, are what they hold."""
        found: list[Any] = []
        parts = flatten(value, found)
        for x in found:
            if type(x) not in (list, dict) or id(x) in self._outside or id(x) in self._containers:
                raise Unstaged(f"{name} is another {type(x).__name__} in each branch")
            self._containers.add(id(x))
        return parts

    def skip(self) -> None:
        """A variable that nobody reads."""
        self.slots.append(Slot(None, [], UNBOUND))

    def _leaf(self, name: str, values: tuple[Any, ...]) -> int:
        first = values[0]
        if all(v is first for v in values):
            return SAME
        if all(isinstance(v, TensorBase) for v in values):
            _check_tensors(name, values)
        elif not _numbers(values):
            if self._owns is not None and all(map(_is_text, values)) and not all(same(first, v) for v in values):
                return self._chosen(values)
            if all(same(first, v) for v in values):
                return SAME
            raise Unstaged(f"{name} is another object in each branch")
        elif all(same(first, v) for v in values):
            return SAME
        key = tuple(map(id, values))
        if key not in self._numbers:
            self._numbers[key] = len(self.results)
            self.results.append(values)
        return self._numbers[key]

    def _chosen(self, values: tuple[Any, ...]) -> int:
        """A text that is another one in each branch."""
        if self._flag is None:
            self._flag = len(self.results)
            self.results.append((True, False))
        sides = []
        for n, text in enumerate(values):
            known: dict[int, _Numbered] = {}

            def place(t: Any, n: int = n, known: dict[int, _Numbered] = known) -> Any:
                assert self._owns is not None
                if not self._owns(n, t):
                    return t
                if id(t) not in known:
                    known[id(t)] = _Numbered(len(self.results))
                    zeros = _Zeros(t.dtype, tuple(t.shape), t.device)
                    self.results.append((t, zeros) if n == 0 else (zeros, t))
                return known[id(t)]

            sides.append((text,) if type(text) is str else moved(text.parts, place))
        first, second = sides
        self.texts.append((self._flag, first, second))
        return _TEXT - len(self.texts)


@dataclass(frozen=True)
class _Numbered:
    """In place of a tensor: the result of this number."""

    n: int


@dataclass(frozen=True)
class _Zeros:
    """In place of a tensor of the other branch."""

    dtype: DType
    shape: tuple[int, ...]
    device: Device


def _is_text(x: Any) -> bool:
    return type(x) is str or isinstance(x, Text)


def _numbers(values: Sequence[Any]) -> bool:
    kinds = {v.kind if isinstance(v, Number) else type(v) for v in values}
    return len(kinds) == 1 and all(isinstance(v, Number) or fits(v) for v in values)


def unset_like(x: Any) -> Any:
    """In place of what a `return` that has not happened would give: something of that kind, which nobody reads."""
    leaves, tree = flatten(x)
    for k, leaf in enumerate(leaves):
        if isinstance(leaf, TensorBase):
            leaves[k] = _zeros(leaf.dtype, tuple(leaf.shape), leaf.device)
        elif isinstance(leaf, Text):
            leaves[k] = ""
        elif isinstance(leaf, Number) or type(leaf) in DTYPES:
            leaves[k] = (leaf.kind if isinstance(leaf, Number) else type(leaf))(0)
    return unflatten(tree, iter(leaves))


def _zeros(dtype: DType, shape: tuple[int, ...], device: Device) -> Any:
    attrs: Attrs = {"shape": shape, "dtype": dtype, "value": dispatch.PYTHON_TYPES[dtype.kind](0)}
    (made,) = OPS["full"].bind((), attrs, receiver=dispatch.constant((), bool_, False, device))
    (own,) = OPS["copy"].bind((made,), {})
    return own


def plain(t: Any) -> bool:
    """Whether a tensor is one like any other: nothing is known of it but its elements."""
    return type(t) is dispatch.tensor_class() and not t._flags and dense(t)


def dense(t: Any) -> bool:
    """Whether a tensor has the strides of a new one, also where that makes no difference to what lies where."""
    return bool(t._layout.strides == contiguous_strides(t._layout.shape))


def _check_tensors(name: str, values: Sequence[Any]) -> None:
    for t in values:
        if not plain(t):
            raise Unstaged(f"{name} is a tensor through which gradients flow, or of a special kind")
        if t.ttype != values[0].ttype:
            raise Unstaged(f"{name} is {values[0].ttype} in one branch and {t.ttype} in the other")


def as_tensor(x: Any) -> Any:
    """A leaf as a tensor of the graph that is being recorded."""
    if isinstance(x, Number):
        return x.tensor
    if isinstance(x, _Zeros):
        return _zeros(x.dtype, x.shape, x.device)
    return x if isinstance(x, TensorBase) else constant(type(x), x)


def values_in(inner: Inner, leaves: Sequence[Any]) -> list[Any]:
    """Leaves as tensors of a trial that is over."""
    outer, MODES.recorder = MODES.recorder, inner
    try:
        return [as_tensor(x) for x in leaves]
    finally:
        MODES.recorder = outer


class Aliases:
    """Which results may be other names of what: of tensors from outside (their storages), or of each other."""

    def __init__(self) -> None:
        self.outside: list[tuple[int, Any]] = []  # result, a tensor from outside that may share its memory
        self.pairs: list[tuple[int, int]] = []
        self.parts: set[int] = set()  # results that may be a part of larger memory
        self.kept: set[int] = set()  # results that may be their own starts

    def look(self, inner: Inner, leaves: Sequence[Any], given: Sequence[Any] = ()) -> None:
        """The leaves that one branch gives, numbered as the results. `given` tensors are the starts of results, of
        which there are as many."""
        roots: dict[int, int] = {}
        for k, x in enumerate(leaves):
            if not isinstance(x, TensorBase):
                continue
            entry = inner.entries.get(id(x)) or inner._lift(x)
            if is_part(inner, x):
                self.parts.add(k)
            for storage in sharing(inner, entry.storage):
                starts = [j for j, g in enumerate(given) if storage.root is g]
                if starts:
                    self.pairs += [(k, j) for j in starts if j != k]
                    self.kept.update(j for j in starts if j == k)
                elif storage.input is not None:
                    self.outside.append((k, storage.root))
                if roots.setdefault(id(storage), k) != k:
                    self.pairs.append((roots[id(storage)], k))

    def tell(
        self,
        capture: Capture,
        tensors: Sequence[Any],
        site: Site,
        starts: Sequence[tuple[int, Any]] = (),
        twins: bool = False,
    ) -> None:
        """Let a capture know, of the results. `starts`: what results are where a loop takes no turn, and whether a
        compiled call returns these very tensors then."""
        groups: list[tuple[Storage, Storage]] = []
        for k, t in (*self.outside, *starts):
            capture.value_of(t)
            groups.append((capture.entries[id(tensors[k])].storage, capture.entries[id(t)].storage))
        for a, b in self.pairs:
            if isinstance(tensors[a], TensorBase) and isinstance(tensors[b], TensorBase):
                groups.append((capture.entries[id(tensors[a])].storage, capture.entries[id(tensors[b])].storage))
        for one, other in groups:
            if one is other:
                continue
            entangle(capture, one, other, site)
        self.parts |= {k for k, t in (*self.outside, *(() if twins else starts)) if is_part(capture, t)}
        for k in self.parts:
            storage = capture.entries[id(tensors[k])].storage
            capture.parts[id(storage)] = capture.parts.get(id(storage), frozenset()) | {site}


def is_part(capture: Capture, t: Any) -> bool:
    """Whether a tensor may show only a part of its memory: whoever is given it can tell, by `storage_offset`, and by
    how much memory it keeps."""
    storage = capture.entries[id(t)].storage
    return id(storage) in capture.parts or storage.root._layout.nbytes != t._layout.nbytes


def sharing(capture: Capture, storage: Storage) -> list[Storage]:
    """A storage, and those that it may share its memory with."""
    found = [storage]
    for each in found:
        _, partners = capture.entangled.get(id(each), (None, ()))
        found += [s for s in partners if all(s is not known for known in found)]
    return found


def registered(capture: Capture, joined: Joined, slots: Sequence[Any], made: Sequence[Value], site: Site) -> list[Any]:
    """What Python left in the variables, its tensors known to the capture as the operation's results `made`. The
    second item of what is returned: the tensors, in the order of the results."""
    found: dict[int, Any] = {}
    out: list[Any] = []
    for slot, x in zip(joined.slots, slots, strict=True):
        if slot.tree is None:
            out.append(slot.kept)
            continue
        if x is UNBOUND:
            x = in_plain_python(unset_like, unflatten(slot.tree, iter(slot.kept)))
        leaves, tree = flatten(x)
        if tree != slot.tree:
            raise Entangled("a staged branch gave something else than when it was tried", frozenset({site}))
        changed = False
        for k, n in enumerate(slot.leaves):
            if n == SAME:
                changed = changed or isinstance(slot.kept[k], Number)
                leaves[k] = slot.kept[k] if isinstance(slot.kept[k], Number) else leaves[k]
                continue
            if n <= _TEXT:
                leaves[k], changed = _text_as(capture, joined, n, leaves[k], made, site), True
                continue
            if n not in found:
                found[n] = _known_as(capture, leaves[k], made[n], joined.results[n][0], site)
            changed = changed or found[n] is not leaves[k]
            leaves[k] = found[n]
        out.append(unflatten(tree, iter(leaves)) if changed else x)
    return [out, [found.get(n) for n in range(len(made))]]


def _text_as(capture: Capture, joined: Joined, n: int, x: Any, made: Sequence[Value], site: Site) -> Any:
    """The string `x` that a branch gave, as text of the operation's results."""
    if type(x) is not str:
        raise Entangled("a staged branch gave something else than when it was tried", frozenset({site}))
    found: dict[int, Any] = {}

    def place(t: Any) -> Any:
        if not isinstance(t, _Numbered):
            return t
        if t.n not in found:
            layout = layout_of(
                made[t.n].type.dtype, made[t.n].type.static_shape(), None, _device_of(joined.results[t.n])
            )
            empty = dispatch.empty(layout)
            found[t.n] = dispatch.tensor_on(empty._buffer, empty._ptr, layout)
            enter(capture, found[t.n], made[t.n])
        return found[t.n]

    number, *sides = joined.texts[_TEXT - n - 1]
    flag = host(bool, joined.taken)
    enter(capture, flag, made[number])
    first, second = (paled(side, lambda t: isinstance(t, _Numbered), place, site) for side in sides)
    return Text([Chosen(flag, first, second, x)])


def _device_of(values: Sequence[Any]) -> Device:
    """Where the tensor is that a result is in the branches, or in one of them."""
    return next((v.device for v in values if isinstance(v, (TensorBase, _Zeros))), CPU)


def _known_as(capture: Capture, x: Any, value: Value, example: Any, site: Site) -> Any:
    if isinstance(x, (bool, int, float)) and not isinstance(example, TensorBase):
        kind = example.kind if isinstance(example, Number) else type(example)
        t = host(kind, x)
        enter(capture, t, value)
        return Number(kind, t)
    if not isinstance(x, TensorBase) or x._layout.gtype != value.type or x._flags & ~2:
        raise Entangled("a staged branch gave something else than when it was tried", frozenset({site}))
    if not dense(x) or x._flags:  # a shared constant: what is compiled makes it whole
        x = dispatch.run(OPS["copy"], (x,), {})[0]
    elif id(x) in capture.entries or x._view is not None:
        given, x = x, dispatch.tensor_on(x._buffer, x._ptr, x._layout, x._flags)
        x._grad = given._grad
        capture.hooks.twins[id(x)] = x, given
    enter(capture, x, value)
    return x


def host(kind: type, x: Any) -> Any:
    """A 0-d tensor that holds a number now, of which no capture knows."""
    outer, MODES.recorder = MODES.recorder, None
    try:
        made = dispatch.constant((), DTYPES[kind], x)
        return dispatch.run(OPS["copy"], (made,), {})[0]
    finally:
        MODES.recorder = outer


def enter(capture: Capture, t: Any, value: Value) -> None:
    """From here on `t` is a tensor of the capture's own, which holds `value`."""
    capture.entries[id(t)] = Entry(t, Storage(t, value, None), (), value)


def symbolic(joined: Joined, slots: Sequence[Any], made: Sequence[Any]) -> list[Any]:
    """Variables after an operation that was recorded inside a trial; `made` are its results."""
    out: list[Any] = []
    for slot, x in zip(joined.slots, slots, strict=True):
        if slot.tree is None:
            out.append(slot.kept)
            continue
        leaves, tree = flatten(x)
        for k, n in enumerate(slot.leaves):
            if n <= _TEXT:
                number, *sides = joined.texts[_TEXT - n - 1]
                first, second = (moved(s, lambda t: made[t.n] if isinstance(t, _Numbered) else t) for s in sides)
                leaves[k] = Text([Chosen(made[number], first, second)])
            elif n != SAME:
                example = joined.results[n][0]
                leaves[k] = made[n] if isinstance(example, TensorBase) else like(example, made[n])
        out.append(unflatten(tree, iter(leaves)))
    return out


def in_plain_python(function: Callable[..., Any], *of: Any) -> Any:
    """What a function returns when no capture listens."""
    outer, MODES.recorder = MODES.recorder, None
    try:
        return function(*of)
    finally:
        MODES.recorder = outer
