"""Linear algebra under the names of torch.linalg: what there is of it."""

from kiln.reductions import vector_norm as vector_norm

__all__ = ["vector_norm"]
