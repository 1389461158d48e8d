"""What kiln sees of a machine, for bug reports: the text of `kiln env`."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from kiln.runtime import cache, cuda_driver, targets, threads

_NONE = "not installed"
_CUPY = ("cupy-cuda13x", "cupy-cuda12x", "cupy")
"""What CuPy is called where it is installed."""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return _NONE


_TOLD = ("sse4", "avx", "fma", "f16c", "bmi", "amx", "asimd", "neon", "sve", "vnni", "bf16")


def _features() -> str:
    """The instruction sets for arithmetic that the CPU has."""
    return " ".join(sorted(f for f in targets.cpu_flags() if f.startswith(_TOLD))) or "unknown"


def _devices() -> str:
    """What tensors can be put on, and why there is no GPU where there is none."""
    try:
        gpus = cuda_driver.session().gpus
    except cuda_driver.CudaError as error:
        return f"cpu ({error.message})"
    named = [f"cuda:{g.index} {g.properties['name'].decode(errors='replace')} {g.arch}" for g in gpus]
    return ", ".join(["cpu", *named])


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
        "ml_dtypes": _version("ml_dtypes"),
        "llvmlite": _version("llvmlite"),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "target": f"{target.cpu or target.arch}, {target.vector_bits}-bit vectors",
        "features": _features(),
        "numerics": "bit-equal on every x86-64 CPU with FMA"
        if target.fma
        else "bit-equal on this machine only (no FMA)",
        "threads": str(threads.get_num_threads()),
        "cupy": next((f"{v} ({name})" for name in _CUPY if (v := _version(name)) != _NONE), _NONE),
        "devices": _devices(),
        "cache": str(root) if root is not None else "off (KILN_CACHE=0)",
    }
