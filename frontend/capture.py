"""Capture is a real call: while a `Capture` listens, ops execute as always *and* are recorded into a graph.

Memory is made functional per *storage*: the tensor that a piece of memory was first met through has a current
Value; views of it know the chain of view ops from there, and derive their Value anew after a write. A write through a
view puts its value back into the root's. Written storages of inputs become outputs aliased to those inputs.

Tensors that come from outside are inputs: arguments, tensors that the guards found reachable from the function
(parameters, closures), and gradients that were there before. Anything else from outside is refused.

Questions about tensor data (`if x > 0`, `x.item()`) are answered, and noted with their answers: what comes after one
holds for that answer, and a compiled call asks again (`tree.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable, Sequence
from typing import Any, Final, NoReturn, cast

import numpy as np

from kiln import dispatch
from kiln.answers import Refusal, left_open, truth
from kiln.autograd import Node
from kiln.autograd.tape import next_sequence
from kiln.base import LAYERED, MODES, READONLY, REQUIRES_GRAD, TensorBase
from kiln.errors import CaptureError, KilnError
from kiln.history import History
from kiln.ir.graph import Alias, Attrs, Constant, Graph, GraphBuilder, SourceLoc, Value
from kiln.ir.ops.base import OPS, OpDef
from kiln.ir.ops.matrix import MAY_REFUSE
from kiln.ir.types import TensorType
from kiln.location import user_location
from kiln.putting import put
from kiln.traced import Entangled as Entangled
from kiln.traced import Entry, Given, GradSlot, Query, Storage, Twin, check_separate, edge
from kiln.traced import entangle as entangle

_MAX_ANSWER: Final = 1024
"""Bytes of tensor data that may decide how a call goes on."""


def current() -> Capture | None:
    """The capture that listens in this thread."""
    recorder = MODES.recorder
    return recorder if isinstance(recorder, Capture) else None


class Capture(History):
    """One recording (`kiln.base.Recorder`). Use as a context manager around the call."""

    frozen: Container[int] = ()  # ids of tensors from outside that are constants here
    caught: bool = False  # whether code of the user's may catch errors of checks on data, which are questions then

    def __init__(
        self,
        name: str,
        arguments: Sequence[TensorBase],
        reachable: dict[int, TensorBase],
        locate: Callable[[], SourceLoc | None] | None = user_location,
    ) -> None:
        super().__init__()
        self.builder = GraphBuilder(name, locate)
        self._began = next_sequence()
        self.reachable = reachable
        self.entries: dict[int, Entry] = {}
        self.inputs: list[tuple[str, TensorBase]] = []  # ("argument" | "object" | "grad", tensor)
        self.grads: dict[int, GradSlot] = {}
        self.reads: list[tuple[str, Callable[[], Any]]] = []
        self.queries: list[Query] = []
        self.answers = True  # whether these may be asked
        self.explored = False  # whether all answers to what is asked for its truth are looked into (`exploring.py`)
        self.forced: Given | None = None
        """Where that is being done: answers that are given, in place of the data's."""
        self.hooks: Any = None
        """What stages control flow (`staging.StagingHooks`), if anything does."""
        self.staging: Callable[[], Any] | None = None  # makes such, for scripted functions that a trace calls
        self.entangled: dict[int, tuple[frozenset[Hashable], tuple[Storage, ...]]] = {}
        """Storages, by id, that may share memory with others, depending on data: the sites that say so, the others."""
        self.parts: dict[int, frozenset[Hashable]] = {}
        """Storages, by id, whose tensor may show a part of larger memory, depending on data: the sites that say so."""
        self.prints: list[Callable[[Callable[[Any], int]], Any]] = []
        """What was printed, in order: the effects of a region, told where tensors are among its results."""
        self.twins: dict[int, Twin] = {}
        """Tensors, by id, that are another one, depending on data."""
        self.bridging: Callable[..., None] | None = None
        self.bridges: Any = None
        """The functions with a derivative of the user's that gradients can pass (`function_capture.Bridges`)."""
        self.rows: dict[int, tuple[Any, int]] = {}
        """Tensors, by id, that are rows of what a staged loop gave (`staging_grown.Rows`), and which ones."""
        self.failed: KilnError | None = None  # what a check on data raised, last
        self.differentiated = False  # whether a gradient was taken
        self.before: dict[int, TensorBase] | None = None
        """What inputs that were written held before, by id, if that is to be kept."""
        self.refused: CaptureError | None = None
        """The first refusal: it stands even if the user's code caught the exception."""
        for t in arguments:
            if id(t) not in self.entries:
                self._input("argument", t)

    def __enter__(self) -> Capture:
        MODES.recorder = self
        return self

    def __exit__(self, *_: object) -> None:
        MODES.recorder = None

    def refuse(self, message: str, *, operands: Sequence[TensorType] = (), fix: str = "") -> NoReturn:
        """Raise CaptureError, and remember it."""
        error = CaptureError(message, operands=operands, fix=fix)
        if self.refused is None:
            self.refused = error
        raise error

    # ---------------------------------------------------------------------------- what tensors report

    def execute(self, op: OpDef, operands: Sequence[Any], attrs: Attrs, receiver: Any) -> tuple[Any, ...]:
        """Values are live: ops run while they are recorded."""
        asked = self.caught and op.name in MAY_REFUSE and attrs.get("check", True)
        if asked:
            self.ask(operands[0], f"an error of {op.name}", Refusal(op.name, tuple(attrs.items())))
        try:
            return dispatch.run(op, operands, attrs, receiver)
        except KilnError as error:
            self.failed = error if error.checked and not asked else self.failed
            raise

    def record(self, op: OpDef, operands: Sequence[Any], attrs: Attrs, results: Sequence[Any]) -> None:
        """An op was executed."""
        self._settle()
        values = [self.value_of(t) for t in operands]
        made = self.builder.add(op, values, attrs)
        if made and made[0].producer is not None:
            self._latest = (made[0].producer, results)
        for t, v in zip(results, made, strict=True):
            if op.view is not None and t._buffer is operands[0]._buffer:
                source = self.entries[id(operands[0])]
                self.entries[id(t)] = Entry(t, source.storage, (*source.chain, (op, attrs)), v)
            else:
                self.entries[id(t)] = Entry(t, Storage(t, v, None), (), v)

    def writing(self, tensor: TensorBase) -> None:
        """`tensor`'s memory is about to be written: `Inner` may object."""
        if self.before is not None:
            storage = (self.entries.get(id(tensor)) or self._lift(tensor)).storage
            if storage.input is not None and id(storage.root) not in self.before:
                self.before[id(storage.root)] = dispatch.run(OPS["copy"], (storage.root,), {})[0]

    def record_write(self, tensor: TensorBase, value: TensorBase) -> None:
        """`tensor`'s memory was overwritten once, with what `value` held before."""
        self._settle()
        entry = self.entries.get(id(tensor))
        if entry is None:
            entry = self._lift(tensor)
        else:
            entry.storage.version += 1  # this write, so that `value` may share the memory
        storage = entry.storage
        self.check_apart(storage)
        if storage.root._flags & READONLY:
            self.refuse("an in-place write to read-only memory", fix="write to a clone()")
        new = self.value_of(value)
        self._check_version(entry)
        if storage.input is not None:
            if storage.root._layout.expanded:
                self.refuse(
                    "an in-place write to a tensor from outside, of which several elements share one place in memory",
                    operands=[storage.root.ttype],
                    fix="write to a clone()",
                )
            self.check_aliasing([storage])
        whole = tensor if tensor._view is None else tensor._view.base
        told = MODES.grad_enabled and whole is storage.root  # those with a history learn of the write
        taped = self.produced.get((whole._node, whole._index)) if told else None
        storage.value = put(self, storage.value, entry.chain, new) if taped is None else taped
        storage.stamp += 1
        if not told and (edge(storage.root) or (edge(tensor) and not MODES.grad_enabled)):
            self.severed.add(storage.value)
        if not entry.chain:
            entry.value, entry.stamp = storage.value, storage.stamp

    def callee(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """What is called in place of a function of the user's that kiln is about to call."""
        return function if self.hooks is None else self.hooks.callee(function)

    def check_apart(self, storage: Storage) -> None:
        """Refuse what makes a difference to whoever shares the memory, when it depends on data who does."""
        sites, _ = self.entangled.get(id(storage), (frozenset(), ()))
        if sites:
            raise Entangled("a tensor is written that a staged branch may have given another name", sites)

    def forbid(self, tensor: TensorBase, what: str) -> None:
        """`what` needs the data of `tensor`, and no compiled call can give it that."""
        self.refuse(
            f"{what} asks for tensor data while a function is captured; the compiled program could not ask again",
            operands=[tensor.ttype],
            fix="compute with tensors (kiln.where instead of if), or move this line out of the compiled function",
        )

    def ask(self, tensor: TensorBase, what: str, fold: Callable[[np.ndarray[Any, Any]], Hashable]) -> Hashable:
        """`what` needs the data of `tensor`, of which only `fold(data)` matters."""
        if not self.answers and not (self.explored and (fold is truth or left_open(fold))):
            self.forbid(tensor, what)
        answer = fold(tensor._array())
        if isinstance(answer, bytes) and len(answer) > _MAX_ANSWER:
            self.forbid(tensor, what)
        if fold is truth and self.forced is not None:
            answer = self.forced.answer(self, bool(answer))
        value = self.value_of(tensor)
        at = (self.builder.count, len(self.inputs))
        self.queries.append(Query(value, answer, fold, what, user_location(), *at))
        return answer

    def give_up(self, refusal: CaptureError) -> None:
        """What was refused stays refused."""
        raise refusal

    def reject(self, message: str, fix: str) -> None:
        """Something that no compiled call could repeat is about to happen."""
        self.refuse(message, fix=fix)

    def grad_read(self, tensor: TensorBase) -> None:
        """`.grad` is read: the gradient from before becomes an input when it is used."""
        self._check_name(tensor)
        slot = self._slot(tensor)
        if not slot.written and not slot.read and not tensor._flags & LAYERED:
            slot.read, slot.before = True, tensor._grad

    def grad_write(self, tensor: TensorBase, grad: TensorBase | None) -> None:
        """`.grad` was set."""
        self._check_name(tensor)
        slot = self._slot(tensor)
        slot.written, slot.final = not tensor._flags & LAYERED, grad

    def hook(self, tensor: TensorBase, what: str) -> None:
        """A hook for the gradient of `tensor`: of one from outside it would last beyond the call; of one made here it
        runs if the gradient is taken here (`Region` looks)."""
        self.change(tensor, what)
        if tensor._node is not None:
            self.hooked[id(tensor._node)] = what

    def change(self, tensor: TensorBase, what: str) -> None:
        """`tensor` changes in ways that only tensors of the call's own may."""
        if not self.made(tensor) and not tensor._flags & LAYERED:
            self.refuse(
                f"{what} on a tensor from outside; a compiled call would not repeat it",
                operands=[tensor.ttype],
                fix="do it before the compiled function is called",
            )
        self._check_name(tensor)

    def _check_name(self, tensor: TensorBase) -> None:
        """What is done to `tensor` itself, as Python knows it, is done to the tensor that it may be another name of."""
        if id(tensor) in self.entries:
            self.check_apart(self.entries[id(tensor)].storage)

    def made(self, tensor: TensorBase) -> bool:
        """Whether a tensor is the call's own."""
        entry = self.entries.get(id(tensor))
        return entry is not None and not (entry.tensor is entry.storage.root and entry.storage.input is not None)

    def pass_on(self, tensor: TensorBase, heir: TensorBase) -> None:
        """From here on `heir` is what `tensor` was: the same part of the same memory."""
        entry = self.entries[id(tensor)]
        if entry.storage.root is tensor:
            entry.storage.root = heir
        made = self.entries[id(heir)] = Entry(heir, entry.storage, entry.chain, entry.value)
        made.stamp = entry.stamp

    def walk(self, node: Node) -> None:
        """A gradient passes a node: those from before the call are the history of an argument, and another argument
        may have another one."""
        if node.sequence < self._began:
            self.refuse(
                f"a gradient taken inside the call goes back through {node.operation}, which was computed before it",
                fix="take the gradient outside the compiled function, or pass the tensor detached",
            )

    def settle(self) -> None:
        """A result of the latest operation is about to be put on the tape by other means than its own."""
        self._settle()

    def bridge(self, node: Node, arguments: Sequence[Any], outputs: Sequence[Any]) -> None:
        """A function with a derivative of the user's was called: `outputs` are results of `node`."""
        if self.bridging is not None:
            self.bridging(node, arguments, outputs)

    def depend(self, path: str, read: Callable[[], Any]) -> None:
        """Python state was read that the guards did not find beforehand."""
        self.reads.append((path, read))

    def _slot(self, tensor: TensorBase) -> GradSlot:
        return self.grads.setdefault(id(tensor), GradSlot(tensor))

    # ---------------------------------------------------------------------------------------- values

    def value_of(self, t: TensorBase) -> Value:
        """The Value that a tensor holds now."""
        entry = self.entries.get(id(t)) or self._lift(t)
        storage = entry.storage
        self._check_version(entry)
        if entry.stamp != storage.stamp:
            value = storage.value
            for op, attrs in entry.chain:
                value = self.derive(op, [value], attrs)
            entry.value, entry.stamp = value, storage.stamp
        return entry.value

    def _check_version(self, entry: Entry) -> None:
        storage = entry.storage
        if storage.version != entry.tensor._buffer.version and not storage.root._flags & READONLY:
            self.refuse(
                "the memory of a traced tensor was changed behind the capture",
                operands=[entry.tensor.ttype],
                fix="change it with kiln's in-place methods",
            )

    def derive(self, op: OpDef, operands: Sequence[Value], attrs: Attrs) -> Value:
        """An operation of the capture's own making, through which gradients flow as through the tape's."""
        (value,) = self.builder.add(op, operands, attrs)
        assert value.producer is not None
        self.rederived.add(value.producer)
        return value

    def _lift(self, t: TensorBase) -> Entry:
        """A tensor from outside becomes an input."""
        rows, k = self.rows.get(id(t), (None, 0))
        if rows is not None:
            return cast("Entry", rows.enter(self, k))
        owners = [slot for slot in self.grads.values() if slot.before is t]
        if len(owners) > 1:
            self.refuse("two tensors share one gradient", operands=[t.ttype], fix="clone() one of them")
        if owners:
            return self._input("grad", t)
        if id(t) in self.frozen:
            return self._enter_constant(t)
        if id(t) in self.reachable:
            return self._input("object", t)
        self.refuse(
            "a tensor that is neither an argument nor reachable from the function (its closure, globals, modules) "
            "was used while it is captured; the compiled program would not notice a new one",
            operands=[t.ttype],
            fix="pass it as an argument, or make it outside and keep it in a variable that the function reads",
        )

    def _enter_constant(self, t: TensorBase) -> Entry:
        (v,) = self.builder.add(OPS["constant"], (), {"data": Constant(t._array())})
        return self.entries.setdefault(id(t), Entry(t, Storage(t, v, None), (), v))

    def _input(self, kind: str, t: TensorBase) -> Entry:
        v = self.builder.input(t._layout.gtype)
        entry = Entry(t, Storage(t, v, len(self.inputs)), (), v)
        self.entries[id(t)] = entry
        self.inputs.append((kind, t))
        return entry

    # ---------------------------------------------------------------------------------------- result

    def storages(self) -> list[Storage]:
        """Input storages that were written."""
        seen = {id(e.storage): e.storage for e in self.entries.values()}
        return [s for s in seen.values() if s.input is not None and s.stamp]

    def check_aliasing(self, written: Sequence[Storage]) -> None:
        """Refuse inputs that share memory when one of them was written."""
        check_separate([t for _, t in self.inputs], [s.input for s in written if s.input is not None])
        for s in written:
            if s.root._flags & REQUIRES_GRAD and s.root._node is not None:
                self.refuse(
                    "an in-place write to an input through which gradients flow",
                    operands=[s.root.ttype],
                    fix="write to a clone(), and return it",
                )

    def finish(self, outputs: Sequence[Value]) -> Graph:
        """Freeze: `outputs`, then the new contents of written inputs, aliased to them."""
        written = self.storages()
        self.check_aliasing(written)
        first = len(outputs)
        aliases = [Alias(first + k, s.input) for k, s in enumerate(written) if s.input is not None]
        return self.builder.build([*outputs, *(s.value for s in written)], aliases)
