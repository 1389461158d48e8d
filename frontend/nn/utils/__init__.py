"""Helpers around modules: bounded gradients, parametrisations, sequences of different lengths."""

from kiln.nn.utils import parametrizations as parametrizations
from kiln.nn.utils import parametrize as parametrize
from kiln.nn.utils import rnn as rnn
from kiln.nn.utils import stateless as stateless
from kiln.nn.utils.gradients import clip_grad_norm_ as clip_grad_norm_
from kiln.nn.utils.gradients import clip_grad_value_ as clip_grad_value_
from kiln.nn.utils.gradients import clip_grads_with_norm_ as clip_grads_with_norm_
from kiln.nn.utils.gradients import get_total_norm as get_total_norm
from kiln.nn.utils.gradients import parameters_to_vector as parameters_to_vector
from kiln.nn.utils.gradients import vector_to_parameters as vector_to_parameters
from kiln.nn.utils.normed import fuse_conv_bn_eval as fuse_conv_bn_eval
from kiln.nn.utils.normed import remove_spectral_norm as remove_spectral_norm
from kiln.nn.utils.normed import remove_weight_norm as remove_weight_norm
from kiln.nn.utils.normed import skip_init as skip_init
from kiln.nn.utils.normed import spectral_norm as spectral_norm
from kiln.nn.utils.normed import weight_norm as weight_norm
