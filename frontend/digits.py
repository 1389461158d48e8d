"""The UCI handwritten digits that ship with kiln: 1,797 real 8x8 scans.

Source: E. Alpaydin and C. Kaynak (1998), Optical Recognition of Handwritten Digits, UCI Machine Learning
Repository, https://doi.org/10.24432/C50P49, CC BY 4.0 (see assets/DIGITS-LICENSE.txt).
"""

from __future__ import annotations

import gzip
import importlib.resources
from typing import Any, NamedTuple

import numpy as np


class Digits(NamedTuple):
    """Images float32 [n, 64] scaled to 0..1 and labels int64 [n]."""

    images: np.ndarray[Any, np.dtype[np.float32]]
    labels: np.ndarray[Any, np.dtype[np.int64]]


def load_digits(part: str = "all") -> Digits:
    """The rows of the data set: "all" of them, or "train" (index % 4 != 3) or "held-out" (index % 4 == 3).

    >>> from kiln.digits import load_digits
    >>> load_digits("held-out").images.shape
    (449, 64)
    """
    if part not in ("all", "train", "held-out"):
        raise ValueError(f'part must be "all", "train" or "held-out", got {part!r}')
    packed = importlib.resources.files("kiln.assets").joinpath("digits.csv.gz").read_bytes()
    table = np.array([row.split(",") for row in gzip.decompress(packed).decode().split()], np.int64)
    held_out = np.arange(len(table)) % 4 == 3
    if part != "all":
        table = table[held_out if part == "held-out" else ~held_out]
    return Digits((table[:, :64] / 16).astype(np.float32), np.ascontiguousarray(table[:, 64]))


def draw(image: np.ndarray[Any, np.dtype[np.float32]]) -> str:
    """An image of 64 numbers 0..1 as 8 lines of text, two characters a pixel.

    >>> from kiln.digits import draw, load_digits
    >>> print(draw(load_digits().images[0]))  # a nought
          ::%%**
          %%@@##@@::
        ::@@..  %%**
        ::%%    ****
        ::**    ****
        ::%%    %%**
        ..@@::##%%
          ++%%##
    """
    shades = " .:+*#%@@"
    rows = image.reshape(8, 8)
    return "\n".join(("  " + "".join(2 * shades[round(float(v) * 8)] for v in row)).rstrip() for row in rows)
