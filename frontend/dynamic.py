"""Code for many sizes: what captures of one compiled function share.

A capture is made anew for each new size, since Python code may look at sizes as it likes. But what it records is most
often what was recorded before, with other numbers in it. So a `Family` (one per compiled function) generalises: at the
second sight of a graph, code is made for the form that both have in common (`ir/passes/generalise.py`), forward and
backward; every later capture that is an instance of that form takes this code, with its own numbers. Whether it is one
is decided number by number, gradients included, so no guess can make a result wrong. A graph whose operations can't be
compiled for symbolic sizes keeps code of its own; `refusals` says why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kiln.compiled import Code
from kiln.errors import GradError
from kiln.ir.graph import Graph, Operation, Value
from kiln.ir.passes.autodiff import Joint, NoDerivative, differentiate
from kiln.ir.passes.cut import given as given_values
from kiln.ir.passes.generalise import (
    Different,
    Fill,
    Names,
    Numbers,
    OtherGraph,
    Strides,
    aligned,
    common_strides,
    generalise,
    lifted,
    match,
    match_strides,
)
from kiln.ir.passes.partition import AtHand, Differentiated, another
from kiln.ir.types import CPU, Device
from kiln.runtime.targets import host_target

_MAX_FORMS = 8
"""Forms, and single graphs that wait for a second one, that are kept for graphs of one structure."""
Given = tuple[tuple[bool, ...], tuple[bool, ...]]
"""Which seeds have a gradient, and which wanted inputs a running one."""


@dataclass(frozen=True)
class Problem:
    """A captured graph, and what gradients are taken of."""

    graph: Graph
    strides: Sequence[Strides]
    seeds: Sequence[Value]
    wanted: Sequence[int]
    taped: frozenset[Operation]
    written: Sequence[int]
    at_hand: AtHand
    device: Device = CPU
    """Where its code is to run."""

    def joint(self, given: Sequence[bool], running: Sequence[bool]) -> Joint:
        """The graph with its gradients. GradError when an op has none."""
        try:
            return differentiate(self.graph, self.seeds, given, self.wanted, running, self.taped)
        except NoDerivative as error:
            raise GradError(str(error), loc=error.operation.loc, op=error.operation.op.name) from None

    @property
    def usual(self) -> Given:
        """Every seed gets a gradient, no input has one."""
        return (True,) * len(self.seeds), (False,) * len(self.wanted)

    @property
    def differentiable(self) -> bool:
        return bool(self.seeds) and bool(self.wanted)

    def structure(self) -> tuple[object, ...]:
        """What problems of one form have in common, whatever their sizes."""
        types = tuple((v.type.dtype, v.type.rank) for v in (*self.graph.inputs, *self.graph.outputs))
        hand = (self.at_hand.direct, self.at_hand.inputs, self.at_hand.outputs)
        return (
            self.device,
            len(self.graph.inputs),
            types,
            len(self.seeds),
            tuple(self.wanted),
            tuple(self.written),
            hand,
        )


class Form:
    """What two problems have in common, with the code for it."""

    def __init__(self, first: Problem, second: Problem, make: Callable[[Joint, Graph], Differentiated]) -> None:
        """Different when there is nothing, or nothing that can be compiled."""
        self._problems = first, second
        self._names = Names()
        self.graph = self._common(first.graph, second.graph)
        self.strides = [
            common_strides(a, b, (u.type.shape, v.type.shape), self._names)
            for a, b, u, v in zip(first.strides, second.strides, first.graph.inputs, second.graph.inputs, strict=True)
        ]
        if any(self.strides[k] is not None for k in first.written):
            raise Different("an input that is written is not contiguous")
        self.instances = 1  # captures that took it, with the first one
        self._joints: dict[Given, Joint] = {}
        self._forward: dict[tuple[object, ...], Code] = {}
        self._backward: dict[tuple[object, ...], tuple[Differentiated, Code]] = {}
        self.plan: Differentiated | None = None
        if first.differentiable:
            self.plan = make(self._joint(first.usual), self.graph)

    def _joint(self, given: Given) -> Joint:
        found = self._joints.get(given)
        if found is None:
            first, second = (p.joint(*given) for p in self._problems)
            if first.found != second.found:
                raise Different("other gradients were asked for")
            graph = self._common(first.graph, second.graph)
            found = self._joints[given] = Joint(self.graph, graph, len(self.graph.operations), first.found)
        return found

    def _common(self, first: Graph, second: Graph) -> Graph:
        """The common form of two graphs, of which one may lack operations that do nothing in it."""
        a, b = aligned(first, second) or first, aligned(second, first) or second
        return generalise(a, b, self._names)

    def match(self, problem: Problem) -> Numbers | None:
        """For which numbers this is the form of a problem and of its gradients; None if for none."""
        numbers = _match(self.graph, problem.graph, {})
        if numbers is None:
            return None
        for general, own, v in zip(self.strides, problem.strides, problem.graph.inputs, strict=True):
            if not match_strides(general, own, v.type.shape, numbers):
                return None
        return self.match_joint(problem, problem.usual, numbers) if problem.differentiable else numbers

    def match_joint(self, problem: Problem, given: Given, numbers: Numbers) -> Numbers | None:
        """The numbers with those of the gradient graph; None if that is no instance."""
        general, own = self._joint(given), problem.joint(*given)
        return _match(general.graph, own.graph, numbers) if general.found == own.found else None

    def program(self, carried: Sequence[int]) -> tuple[Graph, list[Strides], list[Fill]]:
        """The graph of a warm call, which is given the values at positions `carried`; the strides of its inputs; what
        the last of these hold."""
        graph = self.graph if self.plan is None else self.plan.forward
        if carried:
            values = list(graph.values())
            graph = given_values(graph, [values[k] for k in carried])
        return _lifted(graph, [*self.strides, *[None] * len(carried)])

    def forward(self, carried: Sequence[int], name: str, donated: Sequence[int] = ()) -> Code:
        """The code of a warm call. `donated`: inputs whose memory outputs may take over."""
        key = (tuple(carried), tuple(donated), host_target())
        found = self._forward.get(key)
        if found is None:
            graph, strides, fills = self.program(carried)
            found = self._forward[key] = Code(graph, strides, name, fills, donated, self._problems[0].device)
        return found

    def backward(self, given: Given, name: str) -> tuple[Differentiated, Code]:
        """The code for a pattern of gradients that are there."""
        key = (given, host_target())
        found = self._backward.get(key)
        if found is None:
            assert self.plan is not None
            plan = another(self._joint(given), self.plan)
            graph, strides, fills = _lifted(plan.backward, [None] * len(plan.backward.inputs))
            found = self._backward[key] = plan, Code(graph, strides, name, fills, (), self._problems[0].device)
        return found


def _no_gradients(joint: Joint, graph: Graph) -> Differentiated:
    raise AssertionError("no gradients are taken")


def _match(general: Graph, graph: Graph, numbers: Numbers) -> Numbers | None:
    whole = aligned(graph, general)
    return None if whole is None else match(general, whole, numbers)


def _lifted(graph: Graph, strides: Sequence[Strides]) -> tuple[Graph, list[Strides], list[Fill]]:
    whole, fills = lifted(graph)
    return whole, [*strides, *[None] * len(fills)], fills


@dataclass(frozen=True)
class Shared:
    """A problem as an instance of a form."""

    form: Form
    problem: Problem
    numbers: Numbers

    @property
    def plain(self) -> bool:
        """Whether its operations are those of the form, one by one."""
        return len(self.problem.graph.operations) == len(self.form.graph.operations)

    def backward(self, given: Given, name: str) -> tuple[Differentiated, Code, Numbers]:
        """The code for a pattern of gradients that are there, and the numbers for it."""
        numbers = self.form.match_joint(self.problem, given, self.numbers)
        assert numbers is not None, "gradients are those of the form for all seeds, but not for some of them"
        return (*self.form.backward(given, name), numbers)


class Family:
    """The forms that captures of one function have."""

    def __init__(self) -> None:
        self._forms: dict[tuple[object, ...], list[Form]] = {}
        self._single: dict[tuple[object, ...], list[Problem]] = {}
        self.refusals: dict[str, None] = {}
        """Why graphs of one structure have code of their own."""

    def find(self, problem: Problem, make: Callable[[Joint, Graph], Differentiated]) -> Shared | None:
        """The problem as an instance of a form, of a new one if need be; None where it is the first of its kind, or has
        nothing in common with others."""
        found = self.known(problem)
        if found is not None:
            return found
        key = problem.structure()
        forms, single = self._forms.setdefault(key, []), self._single.setdefault(key, [])
        for other in reversed(single):
            try:
                form = Form(other, problem, make)
            except OtherGraph:
                continue
            except Different as reason:
                self.refusals[f"code for one size only: {reason}"] = None
                continue
            numbers = form.match(problem)
            assert numbers is not None, "a graph is no instance of what it has in common with another one"
            forms.insert(0, form)
            del forms[_MAX_FORMS:]
            return Shared(form, problem, numbers)
        single.append(problem)
        del single[:-_MAX_FORMS]
        return None

    def plain(self, graph: Graph, strides: Sequence[Strides], device: Device) -> Shared | None:
        """As `find`, for a graph that no gradients are taken of."""
        problem = Problem(graph, strides, (), (), frozenset(), (), AtHand(), device)
        found = self.find(problem, _no_gradients)
        return found if found is None or found.plain else None

    def known(self, problem: Problem) -> Shared | None:
        """The problem as an instance of a form that is there."""
        for form in self._forms.get(problem.structure(), ()):
            numbers = form.match(problem)
            if numbers is not None:
                form.instances += 1
                return Shared(form, problem, numbers)
        return None
