"""Where kiln meets CuPy: every name of the fake CuPy is one of the real one's, takes what that takes, says the same.

Needs the real CuPy (`pip install 'tensorkiln[cuda]'`), no GPU and no driver. It is imported by processes of its own, as
other tests have the fake one.
"""

from __future__ import annotations

import base64
import functools
import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any, Final

import pytest

from kiln.ir.ops import OPS
from kiln.runtime import cuda_driver, cuda_memory
from tests.codegen.test_cuda_ops import program, some
from tests.gpu import fake_array, fake_cupy, fake_device
from tests.gpu.nvrtc import MachineCode

ROOT: Final = Path(__file__).resolve().parents[2]
UNLIKE: Final = {
    "PinnedMemoryPointer.__init__", "MemoryPointer.__init__", "Graph.__init__",  # made by calls, not by hand
    "CUDARuntimeError.__init__", "CUDADriverError.__init__", "OutOfMemoryError.__init__", "NVRTCError.__init__",
    "alloc_pinned_memory",  # a class of the fake
    "ndarray.__init__",  # which takes anything and hands it on
}  # fmt: skip
"""What kiln never calls by hand, or the fake makes in another way."""

TELL: Final = r'''
import inspect, json, sys, warnings
warnings.simplefilter("error")
import cupy

def told(thing):
    """The parameters, as text without types: Cython's functions tell them in the first line of what they are for."""
    try:
        return [str(p) for p in inspect.signature(thing).parameters.values()]
    except (TypeError, ValueError):
        first = (getattr(thing, "__doc__", None) or "").strip().split("\n")[0]
        return first if "(" in first else None

found = {}
for place, names in json.load(sys.stdin).items():
    home = cupy
    for part in place.split(".")[1:]:
        home = getattr(home, part)
    for name in names:
        thing = getattr(home, name, None)
        there = hasattr(home, name)
        entry = {"there": there, "call": told(thing) if callable(thing) else None}
        entry["value"] = thing if isinstance(thing, int) else None
        if isinstance(thing, type):
            entry["members"] = {}
            for member in names[name]:
                has = hasattr(thing, member)
                entry["members"][member] = [has, told(getattr(thing, member)) if has else None]
        found[f"{place}.{name}"] = entry
print(json.dumps(found))
'''


def run(script: str, given: Any = None) -> Any:
    """What a script prints as JSON, in a process that has the real CuPy; skips where there is none."""
    if importlib.util.find_spec("cupy") is None:
        pytest.skip("no CuPy here: pip install cupy-cuda13x")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    made = subprocess.run(
        [sys.executable, "-c", script], input=json.dumps(given), capture_output=True, text=True, env=environment
    )
    assert made.returncode == 0, made.stderr
    return json.loads(made.stdout)


def public(thing: Any) -> list[str]:
    return [n for n in vars(thing) if not n.startswith("_") or n in ("__init__", "__enter__", "__exit__", "__dlpack__")]


def modules() -> dict[str, dict[str, list[str]]]:
    """The names of the fake's modules, and those of its classes."""
    found: dict[str, dict[str, list[str]]] = {}
    for place, module in fake_cupy.MODULES.items():
        names = found[place] = {}
        for name, thing in vars(module).items():
            if not name.startswith("__") and not isinstance(thing, types.ModuleType):
                names[name] = public(thing) if isinstance(thing, type) else []
    return found


@functools.cache
def real() -> dict[str, Any]:
    found: dict[str, Any] = run(TELL, modules())
    return found


def fakes() -> list[tuple[str, str, Any]]:
    return [
        (place, name, getattr(fake_cupy.MODULES[place], name)) for place, names in modules().items() for name in names
    ]


def parameters(call: Any) -> tuple[list[str], int, bool]:
    """Of what the real CuPy tells: names, how many of them must be given, whether it takes any number more."""
    parts = call if isinstance(call, list) else re.split(r",\s*", call[call.index("(") + 1 : call.rindex(")")])
    names, needed, more = [], 0, False
    for part in parts:
        text = part.split("->")[0].strip()
        if text in ("", "*", "/"):
            continue
        if text.startswith("*"):
            more = True
            continue
        name, _, default = text.partition("=")
        names.append(name.split(":")[0].split()[-1])
        needed += not default
    if names[:1] == ["self"]:
        return names[1:], needed - 1, more
    return names, needed, more


def agree(where: str, mine: Any, call: Any) -> None:
    """Whatever the fake takes, by position and by name, the real one takes."""
    names, needed, more = parameters(call)
    if more:
        return
    own = [p for p in inspect.signature(mine).parameters.values() if p.name != "self"]
    assert [p.name for p in own if p.kind is not p.VAR_POSITIONAL][: len(names)] == names[: len(own)], (where, call)
    assert len(own) <= len(names), (where, call)
    assert sum(p.default is p.empty for p in own) == needed, (where, call)


def test_every_name_of_the_fake_is_one_of_cupys() -> None:
    missing = [name for name, entry in real().items() if not entry["there"]]
    missing += [f"{n}.{m}" for n, e in real().items() for m, (has, _) in e.get("members", {}).items() if not has]
    assert not missing and len(real()) > 40 and fake_array.ndarray is fake_cupy.MODULES["cupy"].ndarray


def test_the_fake_takes_what_cupy_takes() -> None:
    seen = 0
    for place, name, thing in fakes():
        entry = real()[f"{place}.{name}"]
        if isinstance(thing, int):
            assert entry["value"] == thing, name
        elif isinstance(thing, type):
            for member, (_, call) in entry.get("members", {}).items():
                mine = thing.__dict__[member]
                if callable(mine) and call is not None and f"{name}.{member}" not in UNLIKE and member != "__init__":
                    agree(f"{name}.{member}", mine, call)
                    seen += 1
            if entry["call"] and f"{name}.__init__" not in UNLIKE and name not in UNLIKE:
                agree(name, thing.__init__, entry["call"])
                seen += 1
        elif name not in UNLIKE and entry["call"] is not None:
            agree(name, inspect.unwrap(thing), entry["call"])
            seen += 1
    assert seen > 40


def test_the_names_that_kiln_uses_are_in_the_fake() -> None:
    """What no test has reached is not known either."""
    homes = {
        r"\bruntime\.(\w+)\(": "cupy.cuda.runtime", r"\bnvrtc\.(\w+)\(": "cupy.cuda.nvrtc",
        r"\bcuda\.driver\.(\w+)": "cupy.cuda.driver", r"\bcupy\.cuda\.(\w+)\(": "cupy.cuda",
        r"\bsession\.cupy\.(\w+)\(": "cupy",
    }  # fmt: skip
    found = 0
    for path in sorted((ROOT / "runtime").glob("cuda*.py")):
        text = path.read_text()
        for pattern, home in homes.items():
            for name in re.findall(pattern, text):
                assert hasattr(fake_cupy.MODULES[home], name), f"{path.name}: {home}.{name}"
                found += 1
    assert found > 20


def test_errors_say_the_same_and_have_a_status() -> None:
    script = """
import json, sys, cupy
made = cupy.cuda.runtime.CUDARuntimeError
print(json.dumps({s: [str(made(s)), made(s).status] for s in json.load(sys.stdin)}))
"""
    found = run(script, sorted(fake_device.ERRORS))
    for status, (said, number) in found.items():
        assert (said, number) == (str(fake_device.CUDARuntimeError(int(status))), int(status))


def test_without_a_driver_or_with_one() -> None:
    """What kiln catches is what CuPy raises; a query returns its status."""
    script = """
import json, cupy
runtime = cupy.cuda.runtime
try:
    told = runtime.getDeviceCount()
except runtime.CUDARuntimeError as error:
    told = [error.status, isinstance(error, RuntimeError), runtime.eventQuery(0)]
print(json.dumps([told, issubclass(cupy.cuda.memory.OutOfMemoryError, MemoryError)]))
"""
    told, memory = run(script)
    assert memory
    if isinstance(told, list):
        assert told[0] in (*cuda_driver._NO_DRIVER, 100) and told[1] and told[2] != 0
    fix = "import kiln; print(repr(kiln.cuda.is_available()).lower())"
    assert run(fix) is (isinstance(told, int) and told > 0)


def test_kinds_and_limits() -> None:
    script = """
import json, cupy
r = cupy.cuda.runtime
print(json.dumps([r.memcpyHostToDevice, r.memcpyDeviceToHost, r.memcpyDeviceToDevice, r.memcpyDefault,
    r.streamLegacy, r.streamPerThread, r.streamCaptureModeRelaxed]))
"""
    own = [cuda_driver.TO_DEVICE, cuda_driver.TO_HOST, cuda_driver.WITHIN, cuda_driver.ANYWHERE]
    assert run(script) == [*own, cuda_memory.LEGACY, fake_device.PER_THREAD, 2]


def test_errors_after_which_nothing_works_are_those_of_the_header() -> None:
    header = next((p for p in _includes() if p.name == "driver_types.h"), None)
    if header is None:
        pytest.skip("no headers of CUDA's runtime here: pip install nvidia-cuda-runtime")
    text = header.read_text()
    last = {
        int(number)
        for comment, number in re.findall(r"/\*\*((?:(?!\*/).)*)\*/\s*cudaError\w+\s*=\s*(\d+)", text, re.DOTALL)
        if "must be terminated" in " ".join(comment.replace("*", " ").split())
    }
    assert last and last <= cuda_driver._STICKY, last - cuda_driver._STICKY


def _includes() -> list[Path]:
    spec = importlib.util.find_spec("nvidia")
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    return [p for folder in folders for p in Path(folder).glob("*/include/*.h")]


# --------------------------------------------------------------------------------------------------- NVRTC, capsules


def test_machine_code_through_cupy_is_whole_and_has_the_kernels() -> None:
    """What kiln's runtime gives CuPy's NVRTC, with the same options, and would load."""
    names = ["softmax", "matmul", "sort", "attention", "fft", "cholesky"]
    texts = [k for name in names if name in OPS for sample in some(name, 1) for k in program(name, sample).kernels]
    texts = list({k.name: k for k in texts}.values())
    script = """
import base64, json, sys, cupy
from types import SimpleNamespace
from kiln.ir.gpu_program import OPTIONS, CudaText
from kiln.runtime import cuda_kernels
place = SimpleNamespace(session=SimpleNamespace(nvrtc=cupy.cuda.nvrtc, cupy=cupy), arch="sm_90")
given = json.load(sys.stdin)
try:
    version = cuda_kernels._nvrtc_version(place)
except cuda_kernels.CudaError:
    print("null")
    sys.exit()
kernels = [SimpleNamespace(**k) for k in given]
source = "\\n".join([*dict.fromkeys(h for k in kernels for h in k.helpers), *(k.function for k in kernels)])
code = cuda_kernels._compile(place, "some", source, (*OPTIONS, "-arch=sm_90"), kernels)
try:
    cuda_kernels._compile(place, "some", "int x = ;", (*OPTIONS, "-arch=sm_90"), [])
except cuda_kernels.CudaError as error:
    refused = [error.kind, str(error)]
print(json.dumps([base64.b64encode(code).decode(), refused]))
"""
    found = run(script, [{"name": k.name, "function": k.function, "helpers": list(k.helpers)} for k in texts])
    if found is None:
        pytest.skip("no NVRTC that CuPy finds: pip install nvidia-cuda-nvrtc")
    code = base64.b64decode(found[0])
    found_code = MachineCode(code)
    assert found_code.end == len(code) and found_code.machine == 190 and found_code.architecture == 90
    assert {k.name for k in texts} <= found_code.functions
    assert found[1][0] == "compile" and "NVRTC_ERROR_COMPILATION (6)" in found[1][1] and "some.cu(1)" in found[1][1]


def test_cupy_reads_kilns_capsules() -> None:
    script = """
import json, ml_dtypes, numpy as np, cupy
from kiln.runtime import dlpack
address, told = 0x7F0000001000, []
for dtype in ("float32", ml_dtypes.bfloat16, "bool", "complex64", "float16", "int64", "uint8"):
    for shape, strides in (((), ()), ((2, 3), (12, 4)), ((3, 2), (1, 3)), ((0, 4), (4, 1))):
        dtype = np.dtype(dtype)
        steps = tuple(s * dtype.itemsize for s in strides)
        for versioned in (False, True):
            capsule = dlpack.exported(
                object(), (2, 3), address, dtype, shape, steps, readonly=False, versioned=versioned, copied=False
            )
            a = cupy.from_dlpack(capsule)
            same = a.data.ptr == (0 if 0 in shape else address) and a.dtype == dtype and a.shape == shape
            told.append(same and a.strides == steps and a.data.device_id == 3)
print(json.dumps(told))
"""
    assert all(run(script))
