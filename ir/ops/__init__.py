"""Every op of kiln, one `OpDef` each. Importing this package fills `base.OPS`.

The families: `create` (no operands), `elementwise`, `movement` (views, slices, gathers), `reduce`, `linalg`,
`conv`, `pool`, `random`, and `fusion` (what codegen groups). How an op is declared stands in `base`.
"""

from kiln.ir.ops import conv, create, elementwise, fusion, linalg, movement, pool, random, reduce
from kiln.ir.ops.base import OPS, OpDef

__all__ = ["OPS", "OpDef", "conv", "create", "elementwise", "fusion", "linalg", "movement", "pool", "random", "reduce"]
