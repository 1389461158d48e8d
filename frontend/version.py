"""`kiln.version`: what this is, as torch.version tells it."""

from __future__ import annotations

from typing import Final

from kiln import __version__ as __version__

version: Final = __version__
debug: Final = False
cuda: Final = None
hip: Final = None
xpu: Final = None
