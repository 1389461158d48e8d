"""A `Function` in a captured call: what its backward computes becomes part of the program.

Right after `forward` ran, `backward` is run once on gradients without data, while an `Inner` listens, and the captured
graph gets a `through` operation, which holds what was recorded. Gradients that are taken outside of the call then pass
it like any other operation. What `backward` may do is what a branch may do that is tried out: compute, of gradients, of
what `ctx` holds, and of nothing that can be another at the time of the backward walk. Where it does more, nothing is
recorded, and a gradient outside of the call is refused (`Region`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from types import BuiltinFunctionType, FrameType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, Final, NoReturn

from kiln.autograd.grad_mode import GradMode
from kiln.base import MODES, TensorBase
from kiln.capture import Capture
from kiln.control_capture import Inner, placeholders
from kiln.errors import CaptureError
from kiln.ir.graph import AttrValue
from kiln.ir.ops.control import through
from kiln.journal import is_constant
from kiln.location import is_kiln
from kiln.places import SEQUENCES, Spot
from kiln.reach import is_library
from kiln.traced import Storage
from kiln.world import Audit

if TYPE_CHECKING:
    from kiln.autograd.function import FunctionNode
    from kiln.journal import Journal

_OWN: Final = frozenset(
    {"_to_save", "_dirty", "_not_differentiable", "_materialize", "_saved", "_versions", "_owner", "needs_input_grad"}
)
"""What a `FunctionCtx` has besides the user's attributes."""


class Bridges:
    """The functions of one capture that gradients can pass. `audit` watches the call, `journal` knows its places."""

    def __init__(self, capture: Capture, audit: Audit, journal: Journal) -> None:
        self._capture = capture
        self._audit = audit
        self._journal = journal
        self._known: dict[int, tuple[Any, list[tuple[Storage, int]]]] = {}  # nodes, by id, and what they rely on

    def passes(self, node: Any) -> bool:
        """Whether gradients can pass a node outside of the call: what it needs was not written to since."""
        if id(node) not in self._known:
            return False
        return all(storage.stamp == stamp for storage, stamp in self._known[id(node)][1])

    def add(self, node: FunctionNode, arguments: Sequence[Any], outputs: Sequence[Any]) -> None:
        """`outputs` are results of `node`, which is new."""
        capture = self._capture
        places = [k for k, t in enumerate(outputs) if isinstance(t, TensorBase) and t._node is node]
        if len(places) != 1 or MODES.recorder is not capture:
            return
        found = self._traced(node, outputs, places[0])
        if found is None:
            return
        inner, given, made, once = found
        (k,), wanted = places, [n for n, edge in enumerate(node.edges) if edge is not None]
        leaves = [g for n in wanted if (g := made[n]) is not None]
        lifted = inner.lifted()
        graph = inner.graph(inner.values(leaves), [*given, *lifted])
        numbers = iter(range(len(leaves)))
        first = 1 + len(wanted)
        attrs: dict[str, AttrValue] = {
            "backward": graph,
            "found": tuple([-1 if made[n] is None else next(numbers) for n in wanted]),
            "saved": tuple([-1 if t is outputs[k] else first + n for n, t in enumerate(lifted)]),
            "once": once,
        }
        operands = [capture.value_of(t) for t in (outputs[k], *(arguments[n] for n in wanted), *lifted)]
        (value,) = capture.builder.add(through, operands, attrs)
        assert value.producer is not None
        capture.taped.add(value.producer)
        capture.produced[node, k] = value
        entry = capture.entries[id(outputs[k])]
        entry.value = value
        if not entry.chain:
            entry.storage.value = value
        storages = [capture.entries[id(t)].storage for t in lifted]
        self._known[id(node)] = node, [(storage, storage.stamp) for storage in storages]

    def _traced(self, node: FunctionNode, outputs: Sequence[Any], k: int) -> tuple[Inner, list[Any], Any, bool] | None:
        """`backward`, recorded: its recording, the gradients that it was given, those that it returned, and whether
        these must not be differentiated. None where it can't be part of a program."""
        ctx = node.ctx
        held = {} if ctx is None else {name: x for name, x in vars(ctx).items() if name not in _OWN}
        if not all(isinstance(x, TensorBase) or is_constant(x) for x in held.values()):
            return None
        own = {id(t) for t in (*held.values(), *(() if ctx is None else [t for t, _ in ctx._saved or ()]))}
        before = [(spot, spot.held()) for spot in self._journal.places()]
        with GradMode(True):
            given = placeholders([outputs[k].ttype])
            inner = Inner(self._capture, f"the backward of {node.operation}", given)
            grads = [given[0] if n == k else None for n in range(len(outputs))]
            try:
                with self._aside():
                    made = inner.run(node.cls.backward, node.apply, grads, ())
            except Exception:  # noqa: BLE001 (whatever it is: a walk outside of the call would meet it, too)
                made = None
        changed = _restored(before)
        now = {} if ctx is None else {name: x for name, x in vars(ctx).items() if name not in _OWN}
        if now.keys() != held.keys() or any(now[name] is not x for name, x in held.items()):
            for name in now:
                delattr(ctx, name)
            vars(ctx).update(held)
            changed = True
        if made is None or changed or inner.states or not all(id(t) in own for t in inner.lifted()):
            return None
        return inner, given, made, _ends(made, inner)

    @contextlib.contextmanager
    def _aside(self) -> Iterator[None]:
        """Inside, what must not be done ends what is tried out, and not the call."""
        audit = self._audit
        audit.aside, audit.entered = _refused, _entered
        try:
            yield
        finally:
            audit.aside = audit.entered = None
            audit.resume()


def _refused(error: CaptureError) -> NoReturn:
    raise error


def _entered(frame: FrameType) -> None:
    """Code of the user's runs. CaptureError if it reads what may be another when the walk comes: variables of functions
    around it, globals that are no code."""
    code = frame.f_code
    read = [frame.f_globals[name] for name in code.co_names if name in frame.f_globals]
    read += [frame.f_locals[name] for name in code.co_freevars if name in frame.f_locals]
    for x in read:
        library = isinstance(x, type) and is_library(x.__module__)
        if not (library or isinstance(x, (ModuleType, FunctionType, BuiltinFunctionType))):
            raise CaptureError(f"{code.co_qualname}() reads state")


def _restored(before: Sequence[tuple[Spot, Any]]) -> bool:
    """Put back what was changed; whether anything was."""
    changed = False
    for spot, was in before:
        kind, container, now = spot.kind, spot.container, spot.held()
        if kind in SEQUENCES:
            if len(now) != len(was) or any(a is not b for a, b in zip(now, was, strict=True)):
                kind.put(container, 0, was)
                changed = True
        elif isinstance(was, dict):
            for key, x in was.items():
                if key not in now or now[key] is not x:
                    kind.put(container, key, x)
                    changed = True
            for key in now.keys() - was.keys() if len(now) > len(was) else ():
                kind.drop(container, key)
                changed = True
        elif now != was:
            changed = True
            container.clear()
            container.update(was)
    return changed


def _ends(made: Sequence[Any], inner: Inner) -> bool:
    """Whether gradients are not to be differentiated: `once_differentiable`."""
    todo: list[Any] = [g._node for g in made if g is not None]
    while todo:
        node = todo.pop()
        if node is None or node.sequence < inner._began:
            continue
        if not is_kiln(type(node).__module__) or type(node).__name__ == "_OnceNode":
            return True
        todo += [edge[0] for edge in node.edges if edge is not None and hasattr(edge[0], "edges")]
    return False
