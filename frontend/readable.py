"""Reading what was captured: graphs and their code, of every captured function."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from kiln.entry import Call, Entry, find
from kiln.errors import CaptureError
from kiln.ir.graph import Graph
from kiln.region import Region
from kiln.signature import signature

if TYPE_CHECKING:
    from kiln.code_of import Captured, Code


class Readable:
    """The part of a captured function that shows what was captured. Without arguments that is the latest capture."""

    _function: Callable[..., Any]
    _name: str
    _entries: dict[tuple[Any, ...], list[Entry]]
    _latest: tuple[tuple[Any, ...], Entry, Region] | None

    @property
    def graph(self) -> Graph:
        """The captured graph; `str` gives its text. Where data decide between several, the one that was captured last:
        `graph_for` and `ways` show others. CaptureError when nothing was captured yet."""
        return self._captured().region.graph

    @property
    def inlined_graph(self) -> Graph:
        """The same: functions that are called are part of the graph as it is."""
        return self.graph

    @property
    def ways(self) -> str:
        """The ways that calls of the latest signature can go, as text: questions about tensor data, what they may be
        answered with, and the graph at each end. One graph where there are no questions.

        >>> import kiln
        >>> f = kiln.jit.script(lambda x: x if x.sum() > 0 else None)
        >>> f(kiln.ones(2)) is None
        False
        >>> print(f.ways)  # doctest: +ELLIPSIS
        bool() of ...
        is True:
            ...
        is False:
            ...
        """
        if self._latest is None:
            raise CaptureError(f"{self._name} was not captured yet", fix="call it first")
        return str(self._latest[1].tree)

    def graph_for(self, *args: Any, **kwargs: Any) -> Graph:
        """The graph that a call with these arguments would run. CaptureError when no such call was captured."""
        return self._captured_for(args, kwargs).region.graph

    @property
    def code(self) -> str:
        """The captured graph as the text of a Python function that runs, with `kiln` in scope: it takes the arguments
        of the captured function (of a module's method, the module first), and as keywords the tensors of
        `code_inputs`, and gives the same bits. NotYetError for what can't be written as Python.

        >>> import kiln
        >>> f = kiln.jit.trace(lambda x: (x * 2).sum(), kiln.ones(3))
        >>> print(f.code)
        def main(x):
            t1 = kiln.ops.full(dtype=kiln.float32, shape=(3,), value=2.0)
            t2 = kiln.ops.mul(x, t1)
            t3 = kiln.ops.sum(t2, dims=(0,))
            return t3
        <BLANKLINE>
        """
        return self._code().text

    def code_for(self, *args: Any, **kwargs: Any) -> str:
        """The code for a call with these arguments."""
        from kiln.code_of import code_of

        return code_of(self._captured_for(args, kwargs)).text

    @property
    def code_with_constants(self) -> tuple[str, Any]:
        """The code, which has to find a name space of the constants of several elements as `CONSTANTS`; and that."""
        code = self._code(inline=False)
        return code.text, SimpleNamespace(**code.constants)

    @property
    def code_inputs(self) -> dict[str, Any]:
        """The tensors that the code takes as keywords: those that the function finds outside of its arguments and its
        module."""
        return self._code().outside

    def _code(self, inline: bool = True) -> Code:
        from kiln.code_of import code_of  # not needed to run anything

        return code_of(self._captured(), inline)

    def _captured(self) -> Captured:
        if self._latest is None:
            raise CaptureError(f"{self._name} was not captured yet", fix="call it first")
        return self._told_of(*self._latest)

    def _captured_for(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Captured:
        call = Call(args, kwargs, (), *signature((), args, kwargs))
        entry, found = find(self._entries.get(call.key, ()), call.tensors)
        if entry is None or not isinstance(found, tuple):
            raise CaptureError(f"{self._name} was not captured for these arguments", fix="call it with them first")
        return self._told_of(call.key, entry, found[0])

    def _told_of(self, key: tuple[Any, ...], way: Entry, region: Region) -> Captured:
        from kiln.code_of import Captured

        return Captured(self._function, self._name, key, way.objects, way.reached, region)
