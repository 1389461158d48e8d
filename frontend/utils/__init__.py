"""Where PyTorch keeps what is not about tensors."""

from kiln.utils import checkpoint as checkpoint
from kiln.utils import data as data
from kiln.utils import dlpack as dlpack
