"""Masked loads touch no memory outside their buffer: inputs lie against pages that may not be read."""

import subprocess
import sys

PROGRAM = '''
import ctypes
import mmap

import numpy as np

import kiln

page = mmap.PAGESIZE
libc = ctypes.CDLL(None, use_errno=True)


def against_a_page(shape, dtype, start):
    """Numbers whose first (or last) byte is the first (last) of memory that may be read."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    pages = -(-size // page) + 2
    whole = np.frombuffer(mmap.mmap(-1, pages * page), np.uint8)
    for k in (0, pages - 1):
        assert libc.mprotect(ctypes.c_void_p(whole.ctypes.data + k * page), page, 0) == 0, ctypes.get_errno()
    at = page if start else (pages - 1) * page - size
    numbers = whole[at : at + size].view(dtype).reshape(shape)
    numbers[...] = np.random.default_rng(0).integers(-3, 4, size=shape)
    return numbers


def check(name, function, shape, dtype, *others):
    for start in (True, False):
        numbers = against_a_page(shape, dtype, start)
        apart = function(kiln.from_numpy(numbers.copy()), *others)
        same = kiln.compile(function, fullgraph=True)(kiln.from_numpy(numbers), *others)
        assert np.array_equal(same.numpy(), apart.numpy()), (name, dtype, start)


F = kiln.nn.functional
for dtype in ("float32", "float64"):
    for shape, weight, options in [
        ((10, 4, 15, 19), (2, 2, 3, 2), {"groups": 2, "padding": 1}),
        ((2, 4, 9, 20), (4, 1, 3, 3), {"groups": 4, "padding": 1}),
        ((1, 1, 5, 33), (1, 1, 3, 5), {"padding": (1, 2)}),
    ]:
        w = kiln.from_numpy(np.random.default_rng(1).normal(size=weight).astype(dtype))
        check("conv2d", lambda x, w, options=options: F.conv2d(x, w, **options), shape, dtype, w)
for dtype in ("bool", "int8", "int16", "int32", "int64", "float16", "float32", "float64", "complex64", "complex128"):
    for n in (3, 21, 70):
        check("pad", lambda x: F.pad(x + x, (1, 2)) * x.new_ones(n + 3), (5, n), dtype)
        check("shift", lambda x: kiln.where(x != 0, F.pad(x, (1, 0))[..., :-1], x), (5, n), dtype)
print("no fault")
'''


def test_no_load_beyond_the_buffer() -> None:
    # In a process of its own: a fault ends it.
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=600, check=False)
    assert (done.returncode, done.stdout) == (0, "no fault\n"), done.stderr
