"""Which line of the user's program is running: the first frame outside the kiln package."""

from __future__ import annotations

import linecache
import sys
from types import FrameType

from kiln.ir.graph import SourceLoc


def is_kiln(module: str) -> bool:
    """Whether a module is kiln's own machinery; the demo is a user's program like any other."""
    return (module == "kiln" or module.startswith("kiln.")) and module != "kiln.demo"


def user_location() -> SourceLoc | None:
    """File, line and function of the innermost caller outside kiln; None when there is none."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if not is_kiln(frame.f_globals.get("__name__", "")):
            return SourceLoc(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
        frame = frame.f_back
    return None


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
