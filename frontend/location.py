"""Which line of the user's program is running: the first frame outside the kiln package."""

from __future__ import annotations

import linecache
import os
import sys
from types import CodeType, FrameType, TracebackType
from typing import Final

from kiln.ir.graph import SourceLoc


def is_kiln(module: str) -> bool:
    """Whether a module is kiln's own machinery; the demo is a user's program like any other."""
    return (module == "kiln" or module.startswith("kiln.")) and module != "kiln.demo"


_BETWEEN: Final = frozenset({"contextlib", "copy"})
"""Standard modules through which users call kiln: lines of theirs tell nobody anything."""


def _is_between(frame: FrameType) -> bool:
    name = frame.f_globals.get("__name__", "")
    return is_kiln(name) or name in _BETWEEN


def user_location() -> SourceLoc | None:
    """File, line and function of the innermost caller outside kiln; None when there is none."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if not _is_between(frame):
            return SourceLoc(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
        frame = frame.f_back
    return None


def user_line() -> tuple[CodeType, int] | None:
    """The same, for messages that are seldom written: the code, and the line."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if not is_kiln(frame.f_globals.get("__name__", "")):
            return frame.f_code, frame.f_lineno
        frame = frame.f_back
    return None


def user_columns() -> tuple[int, int] | None:
    """The columns, in bytes, of what that line is doing; None when they are not known, or it takes several lines."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _is_between(frame):
        frame = frame.f_back
    if frame is None:
        return None
    line, last, begin, end = list(frame.f_code.co_positions())[frame.f_lasti // 2]
    return None if begin is None or end is None or line != last or line != frame.f_lineno else (begin, end)


def marked(loc: SourceLoc, columns: tuple[int, int]) -> str:
    """A line of carets to go under `source_line`; empty when the source can't be read."""
    line = linecache.getline(loc.file, loc.line)
    begin, end = (len(line.encode()[:column].decode(errors="replace")) for column in columns)
    indent = len(line) - len(line.lstrip())
    return " " * (begin - indent) + "^" * (end - begin) if indent <= begin < end <= len(line) else ""


def user_frames(traceback: TracebackType | None) -> TracebackType | None:
    """A traceback without kiln's own frames; all of it where KILN_TRACEBACK says "full"."""
    if traceback is None or os.environ.get("KILN_TRACEBACK") == "full":
        return traceback
    rest = user_frames(traceback.tb_next)
    if is_kiln(traceback.tb_frame.f_globals.get("__name__", "")):
        return rest
    return TracebackType(rest, traceback.tb_frame, traceback.tb_lasti, traceback.tb_lineno)


def frames_of_kiln() -> int:
    """How many frames from the caller on are kiln's own, and one: the `stacklevel` of a warning for the user's line."""
    frame: FrameType | None = sys._getframe(1)
    count = 1
    while frame is not None and is_kiln(frame.f_globals.get("__name__", "")):
        frame, count = frame.f_back, count + 1
    return count


def source_line(loc: SourceLoc) -> str:
    """The text of that line without indentation; empty when the source can't be read."""
    return linecache.getline(loc.file, loc.line).strip()
