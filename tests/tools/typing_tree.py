"""Lay out `.typing/kiln` as symbolic links, so that the type checker sees the package as it is installed.

Usage: python tests/tools/typing_tree.py && MYPYPATH=.typing mypy -p kiln
"""

from __future__ import annotations

import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    tree = ROOT / ".typing"
    shutil.rmtree(tree, ignore_errors=True)
    package = tree / "kiln"
    package.mkdir(parents=True)
    for child in (ROOT / "frontend").iterdir():
        if child.name != "__pycache__":
            (package / child.name).symlink_to(child)
    for name in ("ir", "codegen", "runtime"):
        (package / name).symlink_to(ROOT / name)


if __name__ == "__main__":
    main()
