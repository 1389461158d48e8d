"""Every op of kiln, one `OpDef` each. Importing this package fills `base.OPS`.

The families: `create` (no operands), `cast`, `elementwise`, `movement` (views, slices, gathers), `reduce`, `linalg`,
`random`, and `fusion` (what codegen groups). How an op is declared stands in `base`.
"""

from kiln.ir.ops import cast, create, elementwise, fusion, linalg, movement, random, reduce
from kiln.ir.ops.base import OPS, OpDef

__all__ = ["OPS", "OpDef", "cast", "create", "elementwise", "fusion", "linalg", "movement", "random", "reduce"]
