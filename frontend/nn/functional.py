"""Functions that layers are made of, under the names of torch.nn.functional."""

from kiln.functional import cross_entropy as cross_entropy
from kiln.functional import gelu as gelu
from kiln.functional import linear as linear
from kiln.functional import log_softmax as log_softmax
from kiln.functional import mse_loss as mse_loss
from kiln.functional import nll_loss as nll_loss
from kiln.functional import relu as relu
from kiln.functional import sigmoid as sigmoid
from kiln.functional import softmax as softmax
from kiln.functional import tanh as tanh
from kiln.gathering import embedding as embedding
from kiln.gathering import one_hot as one_hot
