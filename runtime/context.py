"""The native context: what every generated function is handed (fields in `ir.program.CTX_FIELDS`)."""

from __future__ import annotations

import ctypes
import threading
from typing import Final, NoReturn

from kiln.ir.program import CTX_FIELDS
from kiln.runtime.threads import get_num_threads, pool

ERROR_SLOTS: Final = 4


class Context:
    """One block of native memory: the fields, then the error record and the interrupt flag they point to."""

    __slots__ = ("_block", "address", "error")

    def __init__(self) -> None:
        fields = len(CTX_FIELDS)
        self._block = (ctypes.c_int64 * (fields + ERROR_SLOTS + 1))()
        self.address = ctypes.addressof(self._block)
        error_at = self.address + 8 * fields
        self.error = (ctypes.c_int64 * ERROR_SLOTS).from_address(error_at)
        loaded = pool()
        values = {
            "allocate": loaded.allocate,
            "free": loaded.free,
            "parallel_for": loaded.parallel_for,
            "host_call": loaded.host_call,
            "error": error_at,
            "interrupt": error_at + 8 * ERROR_SLOTS,
            "threads": get_num_threads(),
        }
        for i, name in enumerate(CTX_FIELDS):
            self._block[i] = values[name]

    def raise_again(self) -> NoReturn:
        """Raise what a signal handler raised while native code ran."""
        kept = [ctypes.c_void_p(self.error[k]) for k in (1, 2, 3)]
        self.error[0] = 0
        ctypes.pythonapi.PyErr_Restore(*kept)
        raise AssertionError("an exception was kept, and is none")

    def take_error(self) -> tuple[int, int, int]:
        """(code, check number, value) of the error record, which is cleared."""
        code, site, value = self.error[0], self.error[1], self.error[2]
        self.error[0] = 0
        return code, site, value


class _PerThread(threading.local):
    context: Context | None = None


_local = _PerThread()


def current() -> Context:
    """The calling thread's context, made on first use."""
    context = _local.context
    if context is None:
        context = _local.context = Context()
    return context
