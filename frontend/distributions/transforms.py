"""`kiln.distributions.transforms`: all transforms under one name."""

from __future__ import annotations

from kiln.distributions import bijectors, transform
from kiln.distributions.bijectors import AbsTransform as AbsTransform
from kiln.distributions.bijectors import AffineTransform as AffineTransform
from kiln.distributions.bijectors import CorrCholeskyTransform as CorrCholeskyTransform
from kiln.distributions.bijectors import CumulativeDistributionTransform as CumulativeDistributionTransform
from kiln.distributions.bijectors import ExpTransform as ExpTransform
from kiln.distributions.bijectors import LowerCholeskyTransform as LowerCholeskyTransform
from kiln.distributions.bijectors import PositiveDefiniteTransform as PositiveDefiniteTransform
from kiln.distributions.bijectors import PowerTransform as PowerTransform
from kiln.distributions.bijectors import SigmoidTransform as SigmoidTransform
from kiln.distributions.bijectors import SoftmaxTransform as SoftmaxTransform
from kiln.distributions.bijectors import SoftplusTransform as SoftplusTransform
from kiln.distributions.bijectors import StickBreakingTransform as StickBreakingTransform
from kiln.distributions.bijectors import TanhTransform as TanhTransform
from kiln.distributions.transform import CatTransform as CatTransform
from kiln.distributions.transform import ComposeTransform as ComposeTransform
from kiln.distributions.transform import IndependentTransform as IndependentTransform
from kiln.distributions.transform import ReshapeTransform as ReshapeTransform
from kiln.distributions.transform import StackTransform as StackTransform
from kiln.distributions.transform import Transform as Transform
from kiln.distributions.transform import identity_transform as identity_transform

__all__ = sorted([*bijectors.__all__, *transform.__all__])
