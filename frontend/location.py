"""Which line of the user's program is running: the first frame outside the kiln package."""

from __future__ import annotations

import linecache
import sys
from types import FrameType

from kiln.ir.graph import SourceLoc


def user_location() -> SourceLoc | None:
    """File, line and function of the innermost caller outside kiln; None when there is none."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module != "kiln" and not module.startswith("kiln."):
            return SourceLoc(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
        frame = frame.f_back
    return None


def source_line(loc: SourceLoc) -> str:
    """The text of that line without indentation; empty when the source can't be read."""
    return linecache.getline(loc.file, loc.line).strip()
