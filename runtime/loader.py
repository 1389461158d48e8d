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
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

_WRITE, _ALLOC, _TLS = 1, 2, 0x400  # section flags
_SYMTAB, _RELA, _NOBITS = 2, 4, 8  # section kinds
_INIT_KINDS: Final = {14, 15, 16}  # functions to run at load and exit
_R_64, _R_PC32, _R_PLT32, _R_PC64 = 1, 2, 4, 24
_R_GOTPCREL: Final = {9, 41, 42}
_ENTRY: Final = 16  # bytes of a table entry with its trampoline
_REACH: Final = 1 << 31  # what a 32-bit displacement spans

LIBM: Final = frozenset({"fma", "fmaf", "rint", "rintf", "floor", "floorf", "sqrt", "sqrtf", "fmod", "fmodf"})
LIBC: Final = frozenset({"memcpy", "memset", "memmove"}) | LIBM


class LoadError(RuntimeError):
    """An object cannot be loaded: it is damaged, for another machine, or refers to an unknown symbol."""


@dataclass(slots=True, eq=False)
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


@dataclass(frozen=True, slots=True)
class _Relocation:
    section: _Section
    offset: int
    kind: int
    symbol: int  # its number
    addend: int


class _Object:
    """The parsed tables of a relocatable ELF64 file."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        if len(data) < 64 or data[:6] != b"\x7fELF\x02\x01" or data[16:20] != b"\x01\x00\x3e\x00":
            raise LoadError("not an x86-64 ELF object")
        start = struct.unpack_from("<Q", data, 40)[0]
        count, names = struct.unpack_from("<HH", data, 60)
        raw = [struct.unpack_from("<IIQQQQIIQQ", data, start + 64 * i) for i in range(count)]
        strings = raw[names][4]
        self.sections = [
            _Section(self._text(strings + r[0]), r[1], r[2], r[4], r[5], r[6], r[7], max(1, r[8])) for r in raw
        ]
        for s in self.sections:
            if s.kind != _NOBITS and s.offset + s.size > len(data):
                raise LoadError(f"damaged object: section {s.name} reaches beyond its end")
        self.symbols: list[_Symbol] = []
        for s in self.sections:
            if s.kind == _SYMTAB:
                names_at = self.sections[s.link].offset
                for i in range(s.size // 24):
                    name, info, _, section, value, _ = struct.unpack_from("<IBBHQQ", data, s.offset + 24 * i)
                    self.symbols.append(_Symbol(self._text(names_at + name), section, value, info >> 4 != 0))

    def _text(self, at: int) -> str:
        return self.data[at : self.data.index(b"\0", at)].decode()

    def loaded(self) -> list[_Section]:
        """The sections that take part in running: code and data, but not what unwinders read."""
        found = [s for s in self.sections if s.flags & _ALLOC and s.name != ".eh_frame" and s.size]
        for s in found:
            if s.flags & _TLS or s.kind in _INIT_KINDS:
                raise LoadError(f"section {s.name}: thread-local data and initialisers are not supported")
        return found

    def relocations(self) -> list[_Relocation]:
        """What is to be patched in the loaded sections."""
        loaded, found = set(self.loaded()), []
        for s in self.sections:
            if s.kind == _RELA and self.sections[s.info] in loaded:
                section = self.sections[s.info]
                for i in range(s.size // 24):
                    offset, info, addend = struct.unpack_from("<QQq", self.data, s.offset + 24 * i)
                    width = 8 if info & 0xFFFFFFFF in (_R_64, _R_PC64) else 4
                    if offset + width > section.size:
                        raise LoadError(f"damaged object: relocation beyond section {section.name}")
                    found.append(_Relocation(section, offset, info & 0xFFFFFFFF, info >> 32, addend))
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
    except (struct.error, IndexError, ValueError) as error:  # UnicodeDecodeError is a ValueError
        raise LoadError(f"damaged object: {error}") from None


@dataclass(frozen=True, slots=True)
class _Layout:
    """Offsets in the mapping: code and constants, the table of addresses, then writable data on its own pages."""

    table: int
    data: int
    total: int


def _up(n: int, unit: int) -> int:
    return -(-n // unit) * unit


def _lay_out(sections: list[_Section], entries: int) -> _Layout:
    """Give every section its offset."""
    at = 0
    for s in sections:
        if not s.flags & _WRITE:
            s.address = _up(at, s.align)
            at = s.address + s.size
    table = _up(at, _ENTRY)
    data = at = _up(max(1, table + _ENTRY * entries), mmap.PAGESIZE)
    for s in sections:
        if s.flags & _WRITE:
            s.address = _up(at, s.align)
            at = s.address + s.size
    total = _up(at, mmap.PAGESIZE)
    if total >= _REACH or any(s.align > mmap.PAGESIZE for s in sections):
        raise LoadError(f"an object of {total:,} bytes, or its alignment, is too large to load")
    return _Layout(table, data, total)


def _load(obj: _Object, resolve: Callable[[str], int | None]) -> dict[str, int]:
    sections, relocations = obj.loaded(), obj.relocations()
    # Entries: what others define (each must resolve), and own symbols that the code reads through the table.
    outside = {i: resolve(s.name) for i, s in enumerate(obj.symbols) if s.section == 0 and s.name}
    for number, address in outside.items():
        if address is None:
            raise LoadError(f"unknown external symbol {obj.symbols[number].name!r}")
    numbers = sorted(outside.keys() | {r.symbol for r in relocations if r.kind in _R_GOTPCREL})
    layout = _lay_out(sections, len(numbers))
    base = _libc.mmap(
        None, layout.total, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0
    )
    if base is None or base == ctypes.c_void_p(-1).value:
        raise MemoryError(f"the system refused {layout.total:,} bytes for code")
    try:
        for s in sections:
            if s.kind != _NOBITS:
                ctypes.memmove(base + s.address, obj.data[s.offset : s.offset + s.size], s.size)
        image = (ctypes.c_char * layout.total).from_address(base)
        known = {i: a for i, a in outside.items() if a is not None} | _own_addresses(obj, set(sections), base)
        entries = {number: layout.table + _ENTRY * i for i, number in enumerate(numbers)}
        for number, at in entries.items():
            # The address, for loads through the table, and `jmp [rip-14]`, a trampoline to it.
            struct.pack_into("<Q6s2x", image, at, _defined(obj, known, number), b"\xff\x25\xf2\xff\xff\xff")
        trampolines = {number: base + entries[number] + 8 for number in outside}
        for r in relocations:
            _relocate(obj, r, image, base, known | trampolines, entries)
        if _libc.mprotect(base, layout.data, mmap.PROT_READ | mmap.PROT_EXEC) != 0:
            raise LoadError("the system does not allow executable memory")
    except BaseException:
        _libc.munmap(base, layout.total)
        raise
    return {s.name: known[i] for i, s in enumerate(obj.symbols) if s.exported and s.section and i in known}


def _own_addresses(obj: _Object, sections: set[_Section], base: int) -> dict[int, int]:
    """Addresses of the symbols that the object defines in loaded sections, by number."""
    found = {}
    for i, symbol in enumerate(obj.symbols):
        if 0 < symbol.section < len(obj.sections) and obj.sections[symbol.section] in sections:
            section = obj.sections[symbol.section]
            if symbol.value > section.size:
                raise LoadError(f"damaged object: symbol {symbol.name} lies beyond section {section.name}")
            found[i] = base + section.address + symbol.value
    return found


def _defined(obj: _Object, addresses: dict[int, int], number: int) -> int:
    if number not in addresses:
        raise LoadError(f"reference to {obj.symbols[number].name!r}, which lies in no loaded section")
    return addresses[number]


def _relocate(
    obj: _Object,
    r: _Relocation,
    image: ctypes.Array[ctypes.c_char],
    base: int,
    addresses: dict[int, int],
    entries: dict[int, int],
) -> None:
    """Patch one place (x86-64 psABI, table 4.9). `entries` are offsets in the image, `addresses` absolute."""
    at = r.section.address + r.offset
    here = base + at
    if r.kind in _R_GOTPCREL:
        struct.pack_into("<i", image, at, base + entries[r.symbol] + r.addend - here)
        return
    target = _defined(obj, addresses, r.symbol) + r.addend
    if r.kind in (_R_PC32, _R_PLT32):
        struct.pack_into("<i", image, at, target - here)
    elif r.kind == _R_PC64:
        struct.pack_into("<q", image, at, target - here)
    elif r.kind == _R_64:
        struct.pack_into("<Q", image, at, target & (2**64 - 1))
    else:
        raise LoadError(f"relocation type {r.kind} of {obj.symbols[r.symbol].name!r} is not supported")
