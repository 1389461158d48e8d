"""Every op of kiln, one `OpDef` each. Importing this package fills `base.OPS`.

The families: `create` (no operands), `cast`, `pairs` (complex numbers), `elementwise`, `pointwise`, `transcendental`
and `gamma`, `movement` (views, slices), `gather` (reads and writes at indices), `affine`, `sort`, `scan`, `reduce`,
`linalg` (the product), `matrix`, `matrix_functions` and `fourier` (by a library), `conv`, `pool`, `random`,
`attention`, `control` (branches and loops), and `fusion` (what codegen groups). How an op is declared stands in `base`.
"""

from kiln.ir.ops import affine as affine
from kiln.ir.ops import attention as attention
from kiln.ir.ops import cast as cast
from kiln.ir.ops import control as control
from kiln.ir.ops import conv as conv
from kiln.ir.ops import create as create
from kiln.ir.ops import elementwise as elementwise
from kiln.ir.ops import fourier as fourier
from kiln.ir.ops import fusion as fusion
from kiln.ir.ops import gamma as gamma
from kiln.ir.ops import gather as gather
from kiln.ir.ops import incomplete as incomplete
from kiln.ir.ops import linalg as linalg
from kiln.ir.ops import matrix as matrix
from kiln.ir.ops import matrix_functions as matrix_functions
from kiln.ir.ops import movement as movement
from kiln.ir.ops import pairs as pairs
from kiln.ir.ops import pointwise as pointwise
from kiln.ir.ops import pool as pool
from kiln.ir.ops import random as random
from kiln.ir.ops import reduce as reduce
from kiln.ir.ops import scan as scan
from kiln.ir.ops import series as series
from kiln.ir.ops import sort as sort
from kiln.ir.ops import transcendental as transcendental
from kiln.ir.ops.base import OPS as OPS
from kiln.ir.ops.base import OpDef as OpDef
