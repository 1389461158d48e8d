"""What `runtime/cuda_blas.py` says of cublasLt, and the fake one does, against the real library and its headers.

Needs the library (`pip install nvidia-cublas`, or KILN_REAL_CUBLASLT with its path), not a GPU: descriptions are made
without one.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
from collections.abc import Iterator
from ctypes import POINTER, byref, c_int, c_int32, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import Any, Final

import pytest

from kiln.runtime import cuda_blas
from kiln.runtime.cuda_blas import Library, Refused, _Handle
from tests.gpu import fake_cublaslt, shim

NAMES: Final = {
    "R_32F": "CUDA_R_32F", "R_64F": "CUDA_R_64F", "R_16F": "CUDA_R_16F", "R_16BF": "CUDA_R_16BF",
    "COMPUTE_32F": "CUBLAS_COMPUTE_32F", "COMPUTE_32F_FAST_TF32": "CUBLAS_COMPUTE_32F_FAST_TF32",
    "COMPUTE_64F": "CUBLAS_COMPUTE_64F", "OP_N": "CUBLAS_OP_N", "OP_T": "CUBLAS_OP_T",
    "LAYOUT_BATCH_COUNT": "CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT",
    "LAYOUT_STRIDED_BATCH_OFFSET": "CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET",
    "DESC_TRANSA": "CUBLASLT_MATMUL_DESC_TRANSA", "DESC_TRANSB": "CUBLASLT_MATMUL_DESC_TRANSB",
    "DESC_EPILOGUE": "CUBLASLT_MATMUL_DESC_EPILOGUE", "DESC_BIAS_POINTER": "CUBLASLT_MATMUL_DESC_BIAS_POINTER",
    "DESC_BIAS_BATCH_STRIDE": "CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE",
    "DESC_BIAS_DATA_TYPE": "CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE",
    "EPILOGUE_DEFAULT": "CUBLASLT_EPILOGUE_DEFAULT", "EPILOGUE_BIAS": "CUBLASLT_EPILOGUE_BIAS",
    "PREF_MAX_WORKSPACE_BYTES": "CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES",
    "PREF_REDUCTION_SCHEME_MASK": "CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK",
    "REDUCTION_SCHEME_COMPUTE_TYPE": "CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE",
}  # fmt: skip
SIZES: Final = {  # of attributes, as they are set
    "MatmulDesc": {3: c_int32(1), 4: c_int32(1), 7: c_uint32(4), 8: c_void_p(4096), 10: c_int64(8), 26: c_int32(14)},
    "MatrixLayout": {5: c_int32(6), 6: c_int64(64)},
    "MatmulPreference": {
        1: c_uint64(1 << 25), 3: c_uint32(2), 5: c_uint32(16), 6: c_uint32(16), 7: c_uint32(16), 8: c_uint32(16),
    },
}  # fmt: skip


def real() -> str | None:
    if path := os.environ.get("KILN_REAL_CUBLASLT"):
        return path
    spec = importlib.util.find_spec("nvidia")
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    found = [str(p) for folder in folders for p in Path(folder).glob("*/lib/libcublasLt.so.1[23]")]
    return found[0] if found else None


@pytest.fixture(params=["fake", "real"])
def path(request: pytest.FixtureRequest) -> str:
    found = real() if request.param == "real" else None
    if request.param == "real" and found is None:
        pytest.skip("no cublasLt here: pip install nvidia-cublas")
    if request.param == "fake" and (why := shim.missing()) is not None:
        pytest.skip(why)
    return found or fake_cublaslt.path()


def made(library: Library) -> Iterator[tuple[str, _Handle]]:
    yield "MatmulDesc", _Handle(library, "MatmulDesc", cuda_blas.COMPUTE_32F, cuda_blas.R_32F)
    yield "MatrixLayout", _Handle(library, "MatrixLayout", cuda_blas.R_16BF, 8, 4, 8)
    yield "MatmulPreference", _Handle(library, "MatmulPreference")


def test_attributes_have_the_sizes_that_are_given(path: str) -> None:
    library = Library(path)
    for kind, handle in made(library):
        for attribute, value in SIZES[kind].items():
            handle.set(attribute, value)
            for wrong in (c_uint64(), c_uint32(), (ctypes.c_uint8 * 3)()):
                if ctypes.sizeof(wrong) != ctypes.sizeof(value):
                    with pytest.raises(Refused, match="INVALID_VALUE"):
                        handle.set(attribute, wrong)


def test_attributes_are_read_back_from_the_real_library(path: str) -> None:
    if path == fake_cublaslt.path():
        pytest.skip("the fake has no such call")
    library, raw = Library(path), ctypes.CDLL(path)
    assert library.version >= 120000
    for kind, handle in made(library):
        get: Any = getattr(raw, f"cublasLt{kind}GetAttribute")
        get.argtypes = [c_void_p, c_int, c_void_p, c_size_t, POINTER(c_size_t)]
        for attribute, value in SIZES[kind].items():
            handle.set(attribute, value)
            found, size = type(value)(), c_size_t()
            assert get(handle.ptr, attribute, byref(found), ctypes.sizeof(found), byref(size)) == 0
            assert found.value == value.value and size.value == ctypes.sizeof(value)
    name: Any = raw.cublasLtGetStatusName
    name.restype = ctypes.c_char_p
    for status, text in cuda_blas._STATUS.items():
        assert name(status).decode() == f"CUBLAS_STATUS_{text}"


def test_values_are_those_of_the_headers() -> None:
    found = real()
    include = Path(found).parent.parent / "include" if found else Path()
    texts = [include / name for name in ("cublasLt.h", "cublas_api.h", "library_types.h")]
    text = "".join(p.read_text() for p in texts if p.exists())
    if not text:
        pytest.skip("no headers of cublasLt here: pip install nvidia-cublas")
    values = {k: int(v, 0) for k, v in re.findall(r"^\s*(CU\w+)\s*=\s*(0x[0-9a-fA-F]+|\d+)\s*,", text, re.MULTILINE)}
    known = {mine: theirs for mine, theirs in NAMES.items() if theirs in values or not theirs.startswith("CUDA_")}
    assert {mine: getattr(cuda_blas, mine) for mine in known} == {
        mine: values[theirs] for mine, theirs in known.items()
    }
    letters = [values[f"CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_{x}_BYTES"] for x in "ABCD"]
    assert tuple(letters) == cuda_blas.PREF_MIN_ALIGNMENTS
    (words,) = re.findall(r"uint64_t data\[(\d+)\];\s*\} cublasLtMatmulAlgo_t;", text)
    assert ctypes.sizeof(cuda_blas.Algo) == 8 * int(words)
    (body,) = re.findall(r"typedef struct \{([^}]*)\} cublasLtMatmulHeuristicResult_t;", text)
    fields = re.findall(r"^\s*(\w+) (\w+)(?:\[(\d+)\])?;", body, re.MULTILINE)
    assert [name for _, name, _ in fields] == ["algo", "workspaceSize", "state", "wavesCount", "reserved"]
    assert [kind for kind, _, _ in fields] == ["cublasLtMatmulAlgo_t", "size_t", "cublasStatus_t", "float", "int"]
    assert fields[-1][2] == "4" and ctypes.sizeof(cuda_blas.HeuristicResult) == 64 + 8 + 4 + 4 + 16
