"""What this machine can run, found without LLVM; tests and `KILN_TARGET` may ask for less.

x86-64 is described by its levels (psABI): v4 has AVX-512, v3 has AVX2 and FMA, the baseline has neither. Code
for a level runs on every machine of that level, so cached objects and files travel.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from kiln.ir.target import Target

_X86: Final = "x86_64-unknown-linux-gnu"
LEVELS: Final[dict[str, Target]] = {
    # Without "-prefer-256-bit" LLVM would split our explicit 512-bit vectors.
    "avx512": Target(_X86, "x86-64-v4", "-prefer-256-bit", 512, True),
    "avx2": Target(_X86, "x86-64-v3", "", 256, True),
    "baseline": Target(_X86, "x86-64", "", 128, False),
    "aarch64": Target("aarch64-unknown-linux-gnu", "generic", "", 128, True),
}
"""Targets by the names that `KILN_TARGET` takes."""

_V3: Final = {"avx2", "fma", "bmi1", "bmi2", "f16c", "movbe", "abm"}
_V4: Final = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
_forced: list[Target] = []


class TargetError(RuntimeError):
    """A target was asked for that does not exist or that this machine cannot run."""


def cpu_flags() -> frozenset[str]:
    """The CPU's feature flags as Linux names them; empty where there is no /proc/cpuinfo."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return frozenset()
    for line in text.splitlines():
        if line.startswith("flags"):
            return frozenset(line.split(":", 1)[1].split())
    return frozenset()


@functools.cache
def detect() -> Target:
    """The best target that this machine runs."""
    machine = platform.machine().lower()
    if machine in ("aarch64", "arm64"):
        return LEVELS["aarch64"]
    if machine not in ("x86_64", "amd64"):
        raise TargetError(f"kiln has no code generator for {machine!r}; it has x86-64 and AArch64")
    flags = cpu_flags()
    if flags >= _V4:
        return LEVELS["avx512"]
    return LEVELS["avx2"] if flags >= _V3 else LEVELS["baseline"]


def named(name: str) -> Target:
    """The target called `name`; TargetError when this machine lacks it."""
    if name not in LEVELS:
        raise TargetError(f"no target {name!r}; known: {', '.join(LEVELS)}")
    target, best = LEVELS[name], detect()
    if target.arch != best.arch or target.vector_bits > best.vector_bits:
        raise TargetError(f"target {name!r} needs more than this machine has ({best.cpu})")
    return target


@functools.cache
def _default() -> Target:
    wanted = os.environ.get("KILN_TARGET")
    return named(wanted) if wanted else detect()


def host_target() -> Target:
    """The target that programs are compiled for: `use_target`'s, else $KILN_TARGET's, else the best."""
    return _forced[-1] if _forced else _default()


@contextlib.contextmanager
def use_target(target: Target) -> Iterator[Target]:
    """Compile for `target` inside the block (for tests; process-wide)."""
    _forced.append(target)
    try:
        yield target
    finally:
        _forced.pop()
