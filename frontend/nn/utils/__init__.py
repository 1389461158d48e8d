"""Helpers around modules: sequences of different lengths."""

from kiln.nn.utils import rnn as rnn
