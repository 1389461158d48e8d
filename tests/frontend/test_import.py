"""`import kiln` stays small, and every public name can be reached."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import kiln

HEAVY = {"numpy", "llvmlite", "networkx", "scipy", "ml_dtypes", "safetensors"}


def loaded_by(code: str) -> set[str]:
    """Top-level names of the modules that a fresh interpreter has loaded after `code`."""
    script = f"{code}\nimport sys\nprint(' '.join(sorted(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_import_loads_next_to_nothing() -> None:
    modules = loaded_by("import kiln")
    assert not {m.split(".")[0] for m in modules} & HEAVY
    assert not {m for m in modules if m.startswith("kiln.")}


def test_eager_tensors_do_not_load_the_compiler() -> None:
    modules = loaded_by("import kiln\nx = kiln.tensor([1.0, 2.0])\nx[1:].detach().tolist()")
    tops = {m.split(".")[0] for m in modules}
    assert not tops & {"llvmlite", "networkx", "scipy", "ml_dtypes"}
    assert "kiln.jit" not in modules
    assert "kiln.codegen.pipeline" not in modules


@pytest.mark.parametrize("name", sorted(kiln._HOMES))
def test_every_name_resolves(name: str) -> None:
    assert hasattr(kiln, name)


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(kiln.__file__).read_text())
    block = next(n for n in tree.body if isinstance(n, ast.If))
    seen: dict[str, tuple[str | None, str]] = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom) and node.module is not None
        for alias in node.names:
            if alias.name == "*":
                seen.update({name: (node.module, name) for name in importlib.import_module(node.module).__all__})
            else:
                seen[alias.asname or alias.name] = (node.module, alias.name)
    assert seen == kiln._HOMES


def test_submodules_do_not_hide_functions() -> None:
    import kiln.tensor

    assert callable(kiln.tensor)
    assert kiln.tensor([1.0]).shape == (1,)


def test_unknown_names_are_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        kiln.nonsense  # noqa: B018
