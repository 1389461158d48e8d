"""Optimisers, under PyTorch's names."""

from kiln.optim.algorithms import SGD as SGD
from kiln.optim.algorithms import Adam as Adam
from kiln.optim.algorithms import AdamW as AdamW
from kiln.optim.optimizer import Optimizer as Optimizer
