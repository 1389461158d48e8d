"""Optimisers, under PyTorch's names."""

from kiln.optim import lr_scheduler as lr_scheduler
from kiln.optim import swa_utils as swa_utils
from kiln.optim.adaptive import ASGD as ASGD
from kiln.optim.adaptive import Adadelta as Adadelta
from kiln.optim.adaptive import Adagrad as Adagrad
from kiln.optim.adaptive import Adamax as Adamax
from kiln.optim.adaptive import NAdam as NAdam
from kiln.optim.adaptive import RAdam as RAdam
from kiln.optim.adaptive import RMSprop as RMSprop
from kiln.optim.adaptive import Rprop as Rprop
from kiln.optim.algorithms import SGD as SGD
from kiln.optim.algorithms import Adam as Adam
from kiln.optim.algorithms import AdamW as AdamW
from kiln.optim.lbfgs import LBFGS as LBFGS
from kiln.optim.matrices import Adafactor as Adafactor
from kiln.optim.matrices import Muon as Muon
from kiln.optim.optimizer import Optimizer as Optimizer
