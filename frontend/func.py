"""Functions on functions and modules, under the names of torch.func."""

from __future__ import annotations

from kiln.nn.utils.stateless import functional_call as functional_call
