"""What a machine can do, as plain data: codegen reads it, runtime detects it, caches are keyed by it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """A code generation target. `cpu` and `features` are LLVM's names ("" for a portable baseline)."""

    triple: str
    cpu: str
    features: str  # comma-separated, each with + or -
    vector_bits: int  # widest useful vector register: 512, 256 or 128
    fma: bool

    @property
    def arch(self) -> str:
        """The first part of the triple: x86_64, aarch64, ..."""
        return self.triple.split("-", 1)[0]

    def key(self) -> str:
        """Text that distinguishes targets whose code differs."""
        return f"{self.triple}|{self.cpu}|{self.features}|{self.vector_bits}|{int(self.fma)}"
