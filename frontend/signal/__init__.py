"""`kiln.signal`: signal processing. Its window functions lie in `kiln.signal.windows`."""

from kiln.signal import windows as windows

__all__ = ["windows"]
