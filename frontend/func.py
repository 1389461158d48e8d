"""Functions on functions and modules, under the names of torch.func."""

from __future__ import annotations

from kiln.nn.utils.stateless import functional_call as functional_call
from kiln.transforms import grad as grad
from kiln.transforms import grad_and_value as grad_and_value
from kiln.transforms import hessian as hessian
from kiln.transforms import jacfwd as jacfwd
from kiln.transforms import jacrev as jacrev
from kiln.transforms import jvp as jvp
from kiln.transforms import linearize as linearize
from kiln.transforms import stack_module_state as stack_module_state
from kiln.transforms import vjp as vjp
from kiln.transforms import vmap as vmap
