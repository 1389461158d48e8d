"""The entries of a program as LLVM text: load the slots, call the steps in order, stop at the first failure.

There is one, unless steps of a library lie between: those are no native code, and each run of others has its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kiln.codegen.llvm.text import function_attributes
from kiln.codegen.plan import Plan, Pointer, Step
from kiln.ir.program import Module, Slot
from kiln.ir.target import Target
from kiln.ir.types import Dim

DEFAULT_MXCSR = 0x1F80
"""Round to nearest, subnormals kept, no traps."""


def emit_entry(name: str, plan: Plan, steps: Sequence[Step], slots: tuple[Slot, ...], target: Target) -> Module:
    """`i32 @name(ptr ctx, ptr args)`; a run of the plan's steps, whose symbols it imports."""
    lines: list[str] = []
    places = _load_slots(plan, slots, lines)
    x86 = target.arch == "x86_64"
    if x86:
        lines += [
            "  %csr.old = alloca i32",
            "  %csr.new = alloca i32",
            "  call void @llvm.x86.sse.stmxcsr(ptr %csr.old)",
            f"  store i32 {DEFAULT_MXCSR}, ptr %csr.new",
            "  call void @llvm.x86.sse.ldmxcsr(ptr %csr.new)",
        ]
    declarations: dict[str, str] = {}
    for k, step in enumerate(steps):
        args = ["ptr %ctx"]
        for j, a in enumerate(step.args):
            if isinstance(a, Pointer):
                args.append(f"ptr {_pointer(a, places, f'%p{k}.{j}', lines)}")
            else:
                args.append(f"i64 {_size(a, places, f'%n{k}.{j}', lines)}")
        types = ", ".join(a.split(" ", 1)[0] for a in args)
        declarations[step.symbol] = f"declare i32 @{step.symbol}({types})"
        lines.append(f"  %s{k} = call i32 @{step.symbol}({', '.join(args)})")
        if k + 1 < len(steps):
            lines += [
                f"  %f{k} = icmp ne i32 %s{k}, 0",
                f"  br i1 %f{k}, label %out, label %step{k + 1}",
                f"step{k + 1}:",
            ]
    lines += _ending(len(steps), x86)
    if x86:
        for intrinsic in ("stmxcsr", "ldmxcsr"):
            declarations[intrinsic] = f"declare void @llvm.x86.sse.{intrinsic}(ptr)"
    head = f"define i32 @{name}(ptr %ctx, ptr %args) {function_attributes(target)} {{"
    text = "\n".join([head, "start:", *lines, "}", *(declarations[k] for k in sorted(declarations)), ""])
    imports = tuple(sorted({s.symbol for s in steps}))
    return Module(name, text, (name,), imports, plain=True)


def _load_slots(plan: Plan, slots: tuple[Slot, ...], lines: list[str]) -> dict[object, str]:
    """LLVM names of all slots: values by (kind, index), sizes by name, the arena by "arena"."""
    places: dict[object, str] = {}
    for k, slot in enumerate(slots):
        lines.append(f"  %slot{k} = getelementptr i64, ptr %args, i64 {k}")
        kind = "i64" if slot.kind == "size" else "ptr"
        lines.append(f"  %arg{k} = load {kind}, ptr %slot{k}")
        if slot.kind == "size":
            places[slot.name] = f"%arg{k}"
        elif slot.kind == "arena":
            places["arena"] = f"%arg{k}"
        else:
            places[slot.kind, slot.index] = f"%arg{k}"
    for v, target in plan.targets.items():
        places[v] = places[target]
    for v, offset in plan.arena.items():
        places[v] = f"arena+{offset}"
    return places


def _pointer(a: Pointer, places: Mapping[object, str], name: str, lines: list[str]) -> str:
    """The operand for a pointer argument."""
    base, offset = places[a.root], a.nbytes
    if base.startswith("arena+"):
        offset += int(base[6:])
        base = places["arena"]
    if offset == 0:
        return base
    lines.append(f"  {name} = getelementptr i8, ptr {base}, i64 {offset}")
    return name


def _size(a: Dim, places: Mapping[object, str], name: str, lines: list[str]) -> str:
    """The operand for a size argument; a symbol may be a product of sizes ("k*n")."""
    if isinstance(a, int):
        return str(a)
    factors = [f if f.isdigit() else places[f] for f in a.name.split("*")]
    product = factors[0]
    for i, factor in enumerate(factors[1:]):
        lines.append(f"  {name}.{i} = mul i64 {product}, {factor}")
        product = f"{name}.{i}"
    return product


def _ending(count: int, x86: bool) -> list[str]:
    """One way out, with the status of whichever step was last."""
    restore = ["  call void @llvm.x86.sse.ldmxcsr(ptr %csr.old)"] if x86 else []
    if count == 0:
        return [*restore, "  ret i32 0"]
    sources = []
    for k in range(count):
        block = "start" if k == 0 else f"step{k}"
        sources.append(f"[%s{k}, %{block}]")
    return ["  br label %out", "out:", f"  %status = phi i32 {', '.join(sources)}", *restore, "  ret i32 %status"]
