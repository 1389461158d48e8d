"""Object code to running code: a loader for the ELF objects that LLVM emits, in a page of Python.

Sections are laid out in one mapping, relocated, and made executable (never writable and executable at once).
Symbols of other modules and of libc are reached through trampolines beside the code, so distances do not matter.
Mappings live as long as the process: a kernel may be running in a worker at any time.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64]
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

_ALLOC: Final = 2  # SHF_ALLOC
_NOBITS, _RELA, _SYMTAB = 8, 4, 2
_R_64, _R_PC32, _R_PLT32, _R_32, _R_32S, _R_PC64 = 1, 2, 4, 10, 11, 24
_R_GOTPCREL: Final = {9, 41, 42}

LIBM: Final = frozenset({"fma", "fmaf", "rint", "rintf", "floor", "floorf", "sqrt", "sqrtf", "fmod", "fmodf"})
LIBC: Final = frozenset({"memcpy", "memset", "memmove"}) | LIBM


class LoadError(RuntimeError):
    """An object cannot be loaded: it is damaged, for another machine, or refers to an unknown symbol."""


@dataclass(slots=True)
class _Section:
    name: str
    kind: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    align: int
    address: int = 0


@dataclass(frozen=True, slots=True)
class _Symbol:
    name: str
    section: int
    value: int
    exported: bool


class _Object:
    """The parsed tables of a relocatable ELF64 file."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        if len(data) < 64 or data[:6] != b"\x7fELF\x02\x01" or data[18:20] != b"\x3e\x00":
            raise LoadError("not an x86-64 ELF object")
        start = struct.unpack_from("<Q", data, 40)[0]
        count, names = struct.unpack_from("<HH", data, 60)
        raw = [struct.unpack_from("<IIQQQQIIQQ", data, start + 64 * i) for i in range(count)]
        strings = raw[names][4]
        self.sections = [
            _Section(self._text(strings + r[0]), r[1], r[2], r[4], r[5], r[6], r[7], max(1, r[8])) for r in raw
        ]
        self.symbols: list[_Symbol] = []
        for s in self.sections:
            if s.kind == _SYMTAB:
                names_at = self.sections[s.link].offset
                for i in range(s.size // 24):
                    name, info, _, section, value, _ = struct.unpack_from("<IBBHQQ", data, s.offset + 24 * i)
                    self.symbols.append(_Symbol(self._text(names_at + name), section, value, info >> 4 != 0))

    def _text(self, at: int) -> str:
        return self.data[at : self.data.index(b"\0", at)].decode()

    def relocations(self) -> list[tuple[_Section, int, int, int, int]]:
        """(section, offset, type, symbol, addend) of every loaded section."""
        found = []
        for s in self.sections:
            if s.kind == _RELA and self.sections[s.info].flags & _ALLOC:
                for i in range(s.size // 24):
                    offset, info, addend = struct.unpack_from("<QQq", self.data, s.offset + 24 * i)
                    found.append((self.sections[s.info], offset, info & 0xFFFFFFFF, info >> 32, addend))
        return found


def undefined_symbols(data: bytes) -> frozenset[str]:
    """Names that an object expects from outside."""
    return frozenset(s.name for s in _Object(data).symbols if s.section == 0 and s.name)


def libc_address(name: str) -> int | None:
    """The address of one of the few libc and libm functions that code may call, else None."""
    if name not in LIBC:
        return None
    try:
        function = getattr(_libc, name)
    except AttributeError:
        function = getattr(ctypes.CDLL("libm.so.6"), name)
    return ctypes.cast(function, ctypes.c_void_p).value


def load_object(data: bytes, resolve: Callable[[str], int | None]) -> dict[str, int]:
    """Map, relocate and protect an object; returns the addresses of its exported symbols.

    `resolve` gives the address of a name that the object does not define; None raises LoadError."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        raise LoadError(f"the loader knows x86-64 objects, not {platform.machine()}'s")
    try:
        return _load(_Object(data), resolve)
    except (struct.error, IndexError, ValueError, UnicodeDecodeError) as error:
        raise LoadError(f"damaged object: {error}") from None


def _load(obj: _Object, resolve: Callable[[str], int | None]) -> dict[str, int]:
    page = mmap.PAGESIZE
    loaded = [s for s in obj.sections if s.flags & _ALLOC and s.name != ".eh_frame" and s.size]
    writable = [s for s in loaded if s.flags & 1]
    at = 0
    for s in sorted(loaded, key=lambda s: s.flags & 1):  # writable data last, on pages of its own
        if s in writable and s is writable[0]:
            at = -(-at // page) * page
        at = -(-at // s.align) * s.align
        s.address = at
        at += s.size
    data_start = min((s.address for s in writable), default=at)
    foreign = sorted({s.name for s in obj.symbols if s.section == 0 and s.name})
    # Trampolines and the table of addresses belong to the code: before the writable data.
    stubs_at = -(-(at if not writable else data_start) // 16) * 16
    if writable:
        shift = -(-(16 * len(foreign) + 16) // page) * page
        stubs_at = data_start
        for s in writable:
            s.address += shift
        data_start, at = data_start + shift, at + shift
        total = at
    else:
        total = stubs_at + 16 * len(foreign)
        data_start = total = -(-max(total, 1) // page) * page
    total = -(-max(total, 1) // page) * page
    base = _libc.mmap(None, total, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    if base is None or base == ctypes.c_void_p(-1).value:
        raise MemoryError(f"the system refused {total:,} bytes for code")
    image = (ctypes.c_char * total).from_address(base)
    for s in loaded:
        if s.kind != _NOBITS:
            ctypes.memmove(base + s.address, obj.data[s.offset : s.offset + s.size], s.size)
    stubs = _write_stubs(image, base, stubs_at, foreign, resolve)
    _relocate(obj, image, base, {obj.sections.index(s): s for s in loaded}, stubs)
    code = data_start if writable else total
    if _libc.mprotect(base, code, mmap.PROT_READ | mmap.PROT_EXEC) != 0:
        raise LoadError("the system does not allow executable memory")
    return {
        s.name: base + obj.sections[s.section].address + s.value
        for s in obj.symbols
        if s.exported and 0 < s.section < 0xFF00 and obj.sections[s.section] in loaded
    }


def _write_stubs(
    image: ctypes.Array[ctypes.c_char], base: int, at: int, names: list[str], resolve: Callable[[str], int | None]
) -> dict[str, tuple[int, int]]:
    """Per name 16 bytes: the address (for GOT loads) and `jmp [rip-14]`. Returns (trampoline, table entry)."""
    stubs = {}
    for name in names:
        address = resolve(name)
        if address is None:
            raise LoadError(f"unknown external symbol {name!r}")
        struct.pack_into("<Q6s2x", image, at, address, b"\xff\x25\xf2\xff\xff\xff")
        stubs[name] = (base + at + 8, base + at)
        at += 16
    return stubs


def _relocate(
    obj: _Object,
    image: ctypes.Array[ctypes.c_char],
    base: int,
    loaded: dict[int, _Section],
    stubs: dict[str, tuple[int, int]],
) -> None:
    for section, offset, kind, number, addend in obj.relocations():
        if section not in loaded.values():
            continue
        symbol = obj.symbols[number]
        place = section.address + offset
        entry = None
        if symbol.section == 0:
            target, entry = stubs[symbol.name]
        elif symbol.section in loaded:
            target = base + loaded[symbol.section].address + symbol.value
        else:
            raise LoadError(f"relocation against a section that is not loaded ({symbol.name})")
        if kind in _R_GOTPCREL:
            if entry is None:
                raise LoadError(f"table access to the local symbol {symbol.name}")
            struct.pack_into("<i", image, place, entry + addend - (base + place))
        elif kind in (_R_PC32, _R_PLT32):
            struct.pack_into("<i", image, place, target + addend - (base + place))
        elif kind == _R_PC64:
            struct.pack_into("<q", image, place, target + addend - (base + place))
        elif kind == _R_64:
            struct.pack_into("<Q", image, place, (target + addend) & (2**64 - 1))
        else:
            raise LoadError(f"relocation type {kind} of {symbol.name}")
