"""LLVM IR text to object code: the only file that imports llvmlite.

Kernels come as explicit vectors, so no IR passes are run but those of instruction selection. LLVM's lock is
global: compiling in several threads at once gains nothing.
"""

from __future__ import annotations

import functools
import os
import threading
from typing import Any, Final

from kiln.ir.program import Module
from kiln.ir.target import Target

lock: Final = threading.RLock()
"""Held while code is compiled or loaded. A fork waits for it, so that a child finds LLVM in order."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)


class CompileError(RuntimeError):
    """LLVM rejected a text: a fault of kiln's own."""


@functools.cache
def _machine(target: Target, plain: bool) -> Any:
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    made = llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=0 if plain else 2, reloc="pic", codemodel="small"
    )
    return made


def compile_object(source: Module, target: Target) -> bytes:
    """An ELF object of a module for `target`; CompileError with LLVM's message when its text is not valid IR."""
    import llvmlite.binding as llvm

    with lock:
        machine = _machine(target, source.plain)
        try:
            module = llvm.parse_assembly(source.text)
            module.triple = target.triple
            module.data_layout = str(machine.target_data)
            module.verify()
        except RuntimeError as error:
            raise CompileError(f"{source.name}: {error}") from None
        return bytes(machine.emit_object(module))


def assembly(text: str, target: Target) -> str:
    """The machine code of `text` as assembly, for reading."""
    import llvmlite.binding as llvm

    with lock:
        machine = _machine(target, plain=False)
        module = llvm.parse_assembly(text)
        module.triple = target.triple
        module.data_layout = str(machine.target_data)
        return str(machine.emit_assembly(module))
