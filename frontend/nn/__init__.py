"""Modules, layers, losses and initial values, under PyTorch's names."""

from kiln.nn import functional as functional
from kiln.nn import init as init
from kiln.nn.containers import ModuleDict as ModuleDict
from kiln.nn.containers import ModuleList as ModuleList
from kiln.nn.containers import ParameterDict as ParameterDict
from kiln.nn.containers import ParameterList as ParameterList
from kiln.nn.containers import Sequential as Sequential
from kiln.nn.layers import GELU as GELU
from kiln.nn.layers import CrossEntropyLoss as CrossEntropyLoss
from kiln.nn.layers import Flatten as Flatten
from kiln.nn.layers import Identity as Identity
from kiln.nn.layers import Linear as Linear
from kiln.nn.layers import MSELoss as MSELoss
from kiln.nn.layers import ReLU as ReLU
from kiln.nn.layers import Sigmoid as Sigmoid
from kiln.nn.layers import Softmax as Softmax
from kiln.nn.layers import Tanh as Tanh
from kiln.nn.module import Module as Module
from kiln.nn.parameter import Buffer as Buffer
from kiln.nn.parameter import Parameter as Parameter
