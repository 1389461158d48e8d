"""The adaptive softmax: classes in clusters, the rarer the smaller (Grave et al., 2017)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from kiln import functional as F
from kiln.errors import InvalidValueError, ShapeError
from kiln.gathering import gather
from kiln.ir.types import DType
from kiln.nn.containers import ModuleList, Sequential
from kiln.nn.linear import Linear
from kiln.nn.module import Module
from kiln.tensor import Tensor

__all__ = ["AdaptiveLogSoftmaxWithLoss"]


class _Output(NamedTuple):
    """What a call returns."""

    output: Tensor
    loss: Tensor


class AdaptiveLogSoftmaxWithLoss(Module):
    """Log-probabilities of the targets, and their mean loss, over `n_classes` classes sorted by frequency.

    The first `cutoffs[0]` classes and one number for each cluster (from one cutoff to the next) form a softmax, the
    head; the classes of cluster i = 1, 2, ... form one of their own, from in_features // div_value ** i features. All
    clusters are computed for all samples: which ones have targets depends on data.
    """

    def __init__(
        self,
        in_features: int,
        n_classes: int,
        cutoffs: Sequence[int],
        div_value: float = 4.0,
        head_bias: bool = False,
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        cuts = list(cutoffs)
        if not cuts or cuts != sorted(set(cuts)) or cuts[0] <= 0 or cuts[-1] >= n_classes:
            message = f"cutoffs must be one or more ascending numbers between 1 and {n_classes - 1}, got {cuts}"
            raise InvalidValueError(message, op="AdaptiveLogSoftmaxWithLoss")
        self.in_features, self.n_classes, self.cutoffs = in_features, n_classes, [*cuts, n_classes]
        self.div_value, self.head_bias = div_value, head_bias
        self.shortlist_size, self.n_clusters = cuts[0], len(cuts)
        self.head_size = self.shortlist_size + self.n_clusters
        self.head = Linear(in_features, self.head_size, head_bias, device, dtype)
        self.tail = ModuleList()
        for i, (begin, end) in enumerate(itertools.pairwise(self.cutoffs)):
            hidden = int(in_features // div_value ** (i + 1))
            first = Linear(in_features, hidden, False, device, dtype)
            self.tail.append(Sequential(first, Linear(hidden, end - begin, False, device, dtype)))

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        self.head.reset_parameters()
        for first, second in self.tail:
            first.reset_parameters()
            second.reset_parameters()

    def forward(self, input_: Tensor, target_: Tensor) -> _Output:
        """(the log-probability of each target, minus their mean) for samples [N, in_features] and targets [N], or one
        sample and its target. KilnIndexError for a target that is no class."""
        if target_.ndim > 1 or input_.ndim != target_.ndim + 1 or input_.shape[:-1] != target_.shape:
            types = [input_.ttype, target_.ttype]
            message = "expects samples [N, in_features] and targets [N], or one of each"
            raise ShapeError(message, op="AdaptiveLogSoftmaxWithLoss", operands=types)
        single = not target_.ndim
        x, target = (F.unsqueeze(t, 0) if single else t for t in (input_, target_))
        chosen, own = target, None
        for i, (begin, end) in enumerate(itertools.pairwise(self.cutoffs)):
            inside = F.logical_and(F.ge(target, begin), F.lt(target, end))
            place = F.where(inside, F.sub(target, begin), 0)
            of = gather(F.log_softmax(self.tail[i](x), 1), 1, F.unsqueeze(place, 1))
            part = F.where(inside, F.squeeze(of, 1), 0.0)
            own = part if own is None else F.add(own, part)
            chosen = F.where(inside, self.shortlist_size + i, chosen)
        chosen = F.where(F.ge(target, self.n_classes), self.head_size, chosen)
        head = gather(F.log_softmax(self.head(x), 1), 1, F.unsqueeze(chosen, 1))
        assert own is not None
        output = F.add(own, F.squeeze(head, 1))
        loss = F.mean(F.neg(output))
        return _Output(F.squeeze(output, 0) if single else output, loss)

    def log_prob(self, input: Tensor) -> Tensor:
        """The log-probabilities [N, n_classes] of all classes."""
        head = F.log_softmax(self.head(input), 1)
        parts = [head[:, : self.shortlist_size]]
        for i in range(self.n_clusters):
            at = self.shortlist_size + i
            parts.append(F.add(F.log_softmax(self.tail[i](input), 1), head[:, at : at + 1]))
        return F.cat(parts, 1)

    def predict(self, input: Tensor) -> Tensor:
        """The most probable class [N] of each sample."""
        first = F.argmax(self.head(input), 1)
        return F.where(F.lt(first, self.shortlist_size), first, F.argmax(self.log_prob(input), 1))
