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
from kiln.nn.fn_dropout import alpha_dropout as alpha_dropout
from kiln.nn.fn_dropout import dropout as dropout
from kiln.nn.fn_dropout import dropout1d as dropout1d
from kiln.nn.fn_dropout import dropout2d as dropout2d
from kiln.nn.fn_dropout import dropout3d as dropout3d
from kiln.nn.fn_dropout import feature_alpha_dropout as feature_alpha_dropout
from kiln.nn.fn_linear import bilinear as bilinear
from kiln.nn.fn_linear import cosine_similarity as cosine_similarity
from kiln.nn.fn_linear import normalize as normalize
from kiln.nn.fn_linear import pairwise_distance as pairwise_distance
from kiln.nn.fn_norm import batch_norm as batch_norm
from kiln.nn.fn_norm import group_norm as group_norm
from kiln.nn.fn_norm import instance_norm as instance_norm
from kiln.nn.fn_norm import layer_norm as layer_norm
from kiln.nn.fn_norm import local_response_norm as local_response_norm
from kiln.nn.fn_norm import rms_norm as rms_norm
