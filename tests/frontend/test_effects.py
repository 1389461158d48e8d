"""What a compiled call does to the world besides its result: each of these was once different from the eager call."""

from __future__ import annotations

from typing import Any

import pytest

import kiln
from kiln.errors import CaptureError, CaptureWarning


def test_a_write_to_one_of_several_elements_in_one_place() -> None:
    def f(x: Any) -> Any:
        x[1:2].add_(1.0)
        return x * 1

    compiled = kiln.compile(f)
    with pytest.warns(CaptureWarning, match="several elements share"):
        assert [g(kiln.tensor([0.5]).expand(3)).tolist() for g in (f, compiled, compiled)] == [[1.5] * 3] * 3
    with pytest.raises(CaptureError, match="several elements share one place"):
        kiln.compile(f, fullgraph=True)(kiln.tensor([0.5]).expand(3))
