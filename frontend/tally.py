"""What became of the calls of a compiled function."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Tally:
    """How many calls were `compiled` (one program), `staged` (one program that branches or loops as the data say, where
    the function has Python's control flow; of a script also one of its ways, which are all known from the first call
    on), `decided` (they went through decisions on tensor data, as these came up, to a program),
    `captured` (run for real, and recorded), and `eager`; for how many graphs code was `generated` (that of gradients
    not counted); how many results can have been put into the memory of donated arguments (`reused`); why the
    captures, the eager calls, and code for one size; and which programs run as CUDA `graphs`, or why not."""

    compiled: int = 0
    staged: int = 0
    decided: int = 0
    captured: int = 0
    eager: int = 0
    generated: int = 0
    reused: int = 0
    captures: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()
    graphs: tuple[str, ...] = ()

    def __str__(self) -> str:
        counts = (
            f"{self.compiled} compiled, {self.staged} staged, {self.decided} decided, {self.captured} captured, "
            f"{self.eager} eager"
        )
        reused = [f"{self.reused} results on the memory of donated arguments"] if self.reused else []
        captured = [f"captured: {why}" for why in self.captures]
        return "\n".join([counts, *reused, *captured, *self.refusals, *self.graphs])
