"""Which line of the user's program is running: the first frame outside the kiln package."""

from __future__ import annotations

import linecache
import sys

from kiln.ir.graph import SourceLoc


def user_location() -> SourceLoc | None:
    """File, line and function of the innermost caller outside kiln; None when there is none."""
    frame = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module != "kiln" and not module.startswith("kiln."):
            code = frame.f_code
            return SourceLoc(code.co_filename, frame.f_lineno, code.co_name)
        back = frame.f_back
        if back is None:
            return None
        frame = back
    return None


def source_line(loc: SourceLoc) -> str:
    """The text of that line without indentation; empty when the source can't be read."""
    return linecache.getline(loc.file, loc.line).strip()
