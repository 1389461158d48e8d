"""Who may import whom: the walls of docs/architecture.md as a failing test."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {"frontend": "kiln", "ir": "kiln.ir", "codegen": "kiln.codegen", "runtime": "kiln.runtime"}

# Every subpackage that pyproject.toml must list, so that none is left out of an installed kiln.
ALLOWED = {
    "frontend": {"frontend", "ir", "codegen", "runtime"},
    "codegen": {"codegen", "ir"},
    "runtime": {"runtime", "ir"},
    "ir": {"ir"},
}
OUTSIDE = {  # third-party modules each folder may import at all
    "ir": {"numpy", "ml_dtypes", "networkx"},
    "codegen": {"numpy"},
    "runtime": {"numpy", "llvmlite", "platformdirs", "filelock", "cupy"},
    "frontend": {"numpy"},
}
ONE_FILE = {"llvmlite": 1, "networkx": 1, "cupy": 1}  # imported in at most this many files
MACHINE = {"ctypes", "socket", "mmap", "threading"}  # stdlib modules that touch the machine: runtime's
MACHINE_ELSEWHERE = {"threading": {"frontend"}}  # a lock around capture is the frontend's own
IR_ORDER = [
    "types",
    "halves",
    "order",
    "target",
    "arena",
    "graph",
    "intrinsics",
    "loops",
    "loops_gpu",
    "loops_walk",
    "loops_text",
    "ops",
    "printer",
    "parser",
    "interpreter",
    "passes",
]


def sources() -> Iterator[tuple[str, Path, str]]:
    """(folder, path, dotted module name) of every source file."""
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = list(path.relative_to(ROOT / folder).with_suffix("").parts)
            if parts[-1] == "__init__":
                parts.pop()
            yield folder, path, ".".join([package, *parts])


@functools.cache
def imports(path: Path) -> list[tuple[str, int]]:
    """Every absolute module name that a file imports, `from a import b` as a.b too, with its line."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found.append((alias.name, node.lineno))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            for alias in node.names:
                found.append((f"{node.module}.{alias.name}", node.lineno))
    return found


def folder_of(module: str) -> str | None:
    """The folder a kiln module lies in; None for modules of others."""
    if module != "kiln" and not module.startswith("kiln."):
        return None
    second = module.split(".")[1] if "." in module else ""
    return second if second in ("ir", "codegen", "runtime") else "frontend"


ALL = list(sources())


def test_every_folder_was_seen() -> None:
    assert {folder for folder, _, _ in ALL} == set(FOLDERS)
    assert len(ALL) > 40


@pytest.mark.parametrize(("folder", "path", "name"), ALL, ids=[name for _, _, name in ALL])
def test_imports(folder: str, path: Path, name: str) -> None:
    for module, line in imports(path):
        where = f"{path.relative_to(ROOT)}:{line} imports {module}"
        target = folder_of(module)
        top = module.split(".")[0]
        if target is not None:
            assert target in ALLOWED[folder], where
        elif top in ("ir", "codegen", "runtime", "frontend"):
            pytest.fail(f"{where}: use the kiln.* name")
        elif top in {"numpy", "ml_dtypes", "networkx", "llvmlite", "safetensors", "platformdirs", "filelock", "cupy"}:
            assert top in OUTSIDE[folder], where
        if top in MACHINE and folder != "runtime":
            assert folder in MACHINE_ELSEWHERE.get(top, set()), where


def test_one_file_joins_codegen_and_runtime() -> None:
    joining = set()
    for folder, path, _ in ALL:
        if folder == "frontend":
            seen = {folder_of(m) for m, _ in imports(path)}
            if {"codegen", "runtime"} <= seen:
                joining.add(path.name)
    assert joining == {"dispatch.py", "there.py"}


@pytest.mark.parametrize("package", sorted(ONE_FILE))
def test_heavy_packages_have_one_home(package: str) -> None:
    files = {path for _, path, _ in ALL for m, _ in imports(path) if m.split(".")[0] == package}
    assert len(files) <= ONE_FILE[package], files


def test_nn_and_optim_stay_above_the_compiler() -> None:
    for folder, path, name in ALL:
        if folder == "frontend" and name.startswith(("kiln.nn", "kiln.optim")):
            for module, line in imports(path):
                assert folder_of(module) not in ("codegen", "runtime"), f"{path}:{line}"
                assert not module.startswith("kiln.jit"), f"{path}:{line}"


def test_conversion_knows_nothing_of_tensors() -> None:
    for _, path, name in ALL:
        if name.startswith("kiln.convert"):
            for module, line in imports(path):
                ours = module.startswith(("kiln.convert.", "kiln.errors."))
                assert ours or folder_of(module) is None, f"{path}:{line} imports {module}"


def test_order_inside_ir() -> None:
    for folder, path, name in ALL:
        if folder != "ir" or name == "kiln.ir":
            continue
        own = name.split(".")[2]
        if own not in IR_ORDER:
            continue
        tree = ast.parse(path.read_text())
        for node in tree.body:  # imports inside functions (printing on demand) may look ahead
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("kiln.ir."):
                other = node.module.split(".")[2]
                if other in IR_ORDER:
                    assert IR_ORDER.index(other) <= IR_ORDER.index(own), f"{path}:{node.lineno} looks ahead"


def test_no_folder_shadows_another() -> None:
    for name in ("ir", "codegen", "runtime"):
        assert not (ROOT / "frontend" / name).exists()
        assert not (ROOT / "frontend" / f"{name}.py").exists()


def test_every_package_is_listed() -> None:
    import tomllib

    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {name for _, path, name in ALL if path.name == "__init__.py"}
    assert listed == found


SHORT = [  # the files of a newcomer's first thirty minutes
    "README.md", "tests/test_tiny.py", "docs/tour.md", "ir/types.py", "ir/graph.py", "ir/ops/elementwise.py",
    "ir/ops/reduce.py", "frontend/tensor.py", "frontend/capture.py", "frontend/jit.py", "codegen/pipeline.py",
    "ir/passes/cse.py", "ir/loops.py", "codegen/llvm/emit.py", "codegen/cuda/emit.py", "runtime/executable.py",
]  # fmt: skip


@pytest.mark.parametrize("path", SHORT)
def test_first_files_stay_short(path: str) -> None:
    lines = (ROOT / path).read_text().count("\n")
    assert lines <= 400, f"{path} has {lines} lines"


def test_no_file_is_long() -> None:
    for _, path, _ in ALL:
        assert path.read_text().count("\n") <= 800, path
