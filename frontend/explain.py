"""`kiln.explain`: every stage of a compilation as text, from the captured graph to LLVM IR, or to CUDA C."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kiln.drawing import svg
from kiln.ir.parser import parse_graph
from kiln.jit import CompiledFunction
from kiln.region import Region, stages_of
from kiln.there import build as cuda_program

if TYPE_CHECKING:
    from kiln.ir.gpu_program import CudaProgram


@dataclass(frozen=True)
class Explanation:
    """Stages by name, in order; `str()` prints them all."""

    name: str
    reasons: tuple[str, ...]
    stages: tuple[tuple[str, str], ...]
    region: Region = field(repr=False, compare=False)

    def __getitem__(self, stage: str) -> str:
        """The text of a stage ("captured", "simplified", "fused", "loops ...", "scheduled ...", "llvm ...", "plan",
        "entry"; before them "partition" where gradients are taken outside); the first whose name begins so. "cuda":
        the text of `cuda()`."""
        if stage == "cuda":
            return str(self.cuda())
        for name, text in self.stages:
            if name.startswith(stage):
                return text
        raise KeyError(f"no stage {stage!r}; there are {', '.join(name for name, _ in self.stages)}")

    def cuda(self) -> CudaProgram:
        """The same graph for a GPU: `source()` is CUDA C for NVRTC, `plan()` what the host does, in order. This is
        text: no GPU is needed."""
        return cuda_program(*self.region.program(), self.name)

    def svg(self, stage: str = "fused") -> str:
        """A stage that is a graph ("captured", "simplified", "fused") drawn, as the text of an SVG element."""
        return svg(parse_graph(self[stage]))

    def __str__(self) -> str:
        parts = [f"{self.name}: captured because of {'; '.join(self.reasons)}"]
        parts += [f"---- {stage} ----\n{text.rstrip()}" for stage, text in self.stages]
        return "\n\n".join(parts)


def explain(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Explanation:
    """Capture `function` on these arguments and print every stage of its compilation.

    The function runs once, eagerly, as any first call does; one that was compiled with `donate` spends what it is
    given.
    """
    compiled = CompiledFunction(function, fullgraph=True)
    if isinstance(function, CompiledFunction):
        compiled = CompiledFunction(function._function, fullgraph=True, donate=function._donate)
    compiled(*args, **kwargs)
    (region,) = compiled.regions()
    return Explanation(region.name, tuple(compiled.log), stages_of(region), region)
