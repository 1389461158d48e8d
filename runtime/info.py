"""What kiln sees of a machine, for bug reports: the text of `kiln env`."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from kiln.runtime import cache, targets, threads


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def environment() -> dict[str, str]:
    """Versions, CPU, threads and cache folder, in the order to print.

    >>> list(environment())[:3]
    ['kiln', 'python', 'numpy']
    """
    target = targets.host_target()
    root = cache.folder()
    return {
        "kiln": _version("tensorkiln"),
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "numpy": _version("numpy"),
        "llvmlite": _version("llvmlite"),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "target": f"{target.cpu}, {target.vector_bits}-bit vectors",
        "numerics": "bit-equal on every x86-64 CPU with FMA"
        if target.fma
        else "bit-equal on this machine only (no FMA)",
        "threads": str(threads.get_num_threads()),
        "devices": "cpu",
        "cache": str(root) if root is not None else "off (KILN_CACHE=0)",
    }
