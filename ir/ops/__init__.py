"""Every op of kiln, one `OpDef` each. Importing this package fills `base.OPS`.

The families: `create` (no operands), `elementwise`, `movement` (views, slices), `gather` (reads and writes at
indices), `reduce`, `linalg`,
`random`, and `fusion` (what codegen groups). How an op is declared stands in `base`.
"""

from kiln.ir.ops import create, elementwise, fusion, gather, linalg, movement, random, reduce
from kiln.ir.ops.base import OPS, OpDef

__all__ = ["OPS", "OpDef", "create", "elementwise", "fusion", "gather", "linalg", "movement", "random", "reduce"]
