"""Every op of kiln, one `OpDef` each. Importing this package fills `base.OPS`.

The families: `create` (no operands), `elementwise` and `pointwise`, `movement` (views, slices, gathers), `reduce`,
`linalg`, `random`, and `fusion` (what codegen groups). How an op is declared stands in `base`.
"""

from kiln.ir.ops import create, elementwise, fusion, linalg, movement, pointwise, random, reduce
from kiln.ir.ops.base import OPS, OpDef

__all__ = ["OPS", "OpDef", "create", "elementwise", "fusion", "linalg", "movement", "pointwise", "random", "reduce"]
