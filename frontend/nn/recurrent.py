"""Recurrent layers and cells.

Per layer and direction, the products of all time steps with `weight_ih` are one matrix product; then one step after the
other adds the product of the state with `weight_hh`. Loops over time are unrolled in a capture.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from kiln import functional as F
from kiln.casting import lowered, recurrent_dtype
from kiln.creation import empty, zeros
from kiln.errors import ArgumentError, InvalidValueError, ShapeError
from kiln.gathering import index_select
from kiln.ir.types import DType
from kiln.nn import init
from kiln.nn.fn_dropout import check_p, dropout
from kiln.nn.linear import check_sizes
from kiln.nn.module import Module
from kiln.nn.parameter import Parameter
from kiln.nn.utils.rnn import PackedSequence
from kiln.promotion import cast_to
from kiln.tensor import Tensor

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNBase", "RNNCell", "RNNCellBase"]

_GATES = {"RNN_TANH": 1, "RNN_RELU": 1, "LSTM": 4, "GRU": 3}

State = tuple[Tensor, ...]
"""(hidden,), and for an LSTM (hidden, cell)."""


def _tanh_step(x: Tensor, h: Tensor, state: State) -> State:
    return (F.tanh(F.add(x, h)),)


def _relu_step(x: Tensor, h: Tensor, state: State) -> State:
    return (F.relu(F.add(x, h)),)


def _parts(x: Tensor, count: int) -> list[Tensor]:
    """The last dimension in equal parts."""
    size = x.shape[-1] // count
    return [x[..., k * size : (k + 1) * size] for k in range(count)]


def _lstm_step(x: Tensor, h: Tensor, state: State) -> State:
    """c' = sigmoid(f) * c + sigmoid(i) * tanh(g), h' = sigmoid(o) * tanh(c')."""
    i, f, g, o = _parts(F.add(x, h), 4)
    c = F.add(F.mul(F.sigmoid(f), state[1]), F.mul(F.sigmoid(i), F.tanh(g)))
    return F.mul(F.sigmoid(o), F.tanh(c)), c


def _gru_step(x: Tensor, h: Tensor, state: State) -> State:
    """h' = (h - n) * z + n with n = tanh(x_n + r * h_n)."""
    (xr, xz, xn), (hr, hz, hn) = _parts(x, 3), _parts(h, 3)
    r, z = F.sigmoid(F.add(xr, hr)), F.sigmoid(F.add(xz, hz))
    n = F.tanh(F.add(xn, F.mul(r, hn)))
    return (F.add(F.mul(F.sub(state[0], n), z), n),)


_STEPS: dict[str, Callable[[Tensor, Tensor, State], State]] = {
    "RNN_TANH": _tanh_step,
    "RNN_RELU": _relu_step,
    "LSTM": _lstm_step,
    "GRU": _gru_step,
}
"""From the products with the input and with the hidden state (biases added), and the state before: the state after."""


class _Weights:
    """The parameters of one layer and direction."""

    def __init__(self, ih: Tensor, hh: Tensor, bias_ih: Tensor | None, bias_hh: Tensor | None, hr: Tensor | None):
        self.ih, self.hh, self.bias_ih, self.bias_hh, self.hr = ih, hh, bias_ih, bias_hh, hr

    def to(self, dtype: DType) -> _Weights:
        """The same as another dtype."""
        each = (self.ih, self.hh, self.bias_ih, self.bias_hh, self.hr)
        ih, hh, *rest = [None if x is None else lowered(x, dtype) for x in each]
        assert ih is not None and hh is not None
        return _Weights(ih, hh, *rest)

    def step(self, mode: str, x: Tensor, state: State) -> State:
        """One step, from the input's product."""
        after = _STEPS[mode](x, F.linear(state[0], self.hh, self.bias_hh), state)
        return after if self.hr is None else (F.linear(after[0], self.hr), *after[1:])


def _layer(
    mode: str, weights: _Weights, x: Tensor, sizes: Sequence[int], state: State, reverse: bool
) -> tuple[list[Tensor], State]:
    """Run one layer in one direction over rows `x` [sum(sizes), features], sizes[t] (never growing) for step t.

    Returns the outputs per step and the state after the last step of each row.
    """
    products = F.linear(x, weights.ih, weights.bias_ih)
    starts = [0]
    for n in sizes:
        starts.append(starts[-1] + n)
    outputs: list[Tensor] = []
    first = state
    live = sizes[-1] if reverse else sizes[0]
    state = tuple([s[:live] for s in state]) if live < state[0].shape[0] else state
    ended: list[State] = []
    for t in reversed(range(len(sizes))) if reverse else range(len(sizes)):
        n = sizes[t]
        if n < live:  # the sequences behind row n are over
            ended.append(tuple([s[n:] for s in state]))
            state = tuple([s[:n] for s in state])
        elif n > live:  # backwards in time: the sequences behind row `live` begin
            state = tuple([F.cat([s, f[live:n]]) for s, f in zip(state, first, strict=True)])
        live = n
        state = weights.step(mode, products[starts[t] : starts[t + 1]], state)
        outputs.append(state[0])
    if ended:
        state = tuple([F.cat([s, *[e[k] for e in reversed(ended)]]) for k, s in enumerate(state)])
    return outputs[::-1] if reverse else outputs, state


class RNNBase(Module):
    """What RNN, LSTM and GRU share; `mode` is "RNN_TANH", "RNN_RELU", "LSTM" or "GRU".

    The parameters of layer k are weight_ih_lk [gates * hidden, input], weight_hh_lk [gates * hidden, output],
    bias_ih_lk, bias_hh_lk and (with `proj_size`) weight_hr_lk, with "_reverse" behind for the second direction; all
    start uniform in +-1/sqrt(hidden_size).
    """

    def __init__(
        self,
        mode: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        name = type(self).__name__
        check_p(name, dropout)
        check_sizes(name, input_size=input_size, hidden_size=hidden_size, num_layers=num_layers, proj_size=proj_size)
        if mode not in _GATES:
            raise InvalidValueError(f"unknown mode {mode!r}", op=name)
        if hidden_size <= 0 or num_layers <= 0:
            raise InvalidValueError("hidden_size and num_layers must be positive", op=name)
        if proj_size and (mode != "LSTM" or proj_size >= hidden_size):
            raise InvalidValueError("proj_size is for an LSTM, and smaller than hidden_size", op=name)
        if dropout > 0 and num_layers == 1:
            warnings.warn(
                f"dropout={dropout} of {name} lies between layers: with one layer it does nothing", stacklevel=3
            )
        self.mode, self.input_size, self.hidden_size, self.num_layers = mode, input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout = bias, batch_first, float(dropout)
        self.bidirectional, self.proj_size = bidirectional, proj_size
        out, gates = proj_size or hidden_size, _GATES[mode] * hidden_size
        for suffix, layer in self._suffixes():
            width = input_size if layer == 0 else out * (2 if bidirectional else 1)
            shapes: dict[str, tuple[int, ...]] = {
                f"weight_ih_{suffix}": (gates, width),
                f"weight_hh_{suffix}": (gates, out),
            }
            if bias:
                shapes |= {f"bias_ih_{suffix}": (gates,), f"bias_hh_{suffix}": (gates,)}
            if proj_size:
                shapes |= {f"weight_hr_{suffix}": (proj_size, hidden_size)}
            for key, shape in shapes.items():
                setattr(self, key, Parameter(empty(shape, device=device, dtype=dtype)))
        self.reset_parameters()

    def _suffixes(self) -> Iterable[tuple[str, int]]:
        """Name and number of every layer, per direction."""
        for layer in range(self.num_layers):
            yield f"l{layer}", layer
            if self.bidirectional:
                yield f"l{layer}_reverse", layer

    def _weights(self, suffix: str) -> _Weights:
        def get(kind: str, there: Any = True) -> Any:
            return getattr(self, f"{kind}_{suffix}") if there else None

        biases = get("bias_ih", self.bias), get("bias_hh", self.bias)
        return _Weights(get("weight_ih"), get("weight_hh"), *biases, get("weight_hr", self.proj_size))

    @property
    def all_weights(self) -> list[list[Parameter]]:
        """The parameters, per layer and direction."""
        return [
            [p for name, p in self.named_parameters(recurse=False) if name.split("_", 2)[2] == suffix]
            for suffix, _ in self._suffixes()
        ]

    def flatten_parameters(self) -> None:
        """Nothing: parameters need no common memory."""

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        bound = 1 / math.sqrt(self.hidden_size)
        for p in self.parameters():
            init.uniform_(p, -bound, bound)

    def forward(self, input: Tensor | PackedSequence, hx: Any = None) -> Any:
        if isinstance(input, PackedSequence):
            return self._packed(input, hx)
        if not isinstance(input, Tensor):
            raise ArgumentError(f"takes a tensor or a PackedSequence, not {type(input).__name__}", op=self._get_name())
        if input.ndim not in (2, 3):
            raise ShapeError("expects 2 or 3 dimensions", op=self._get_name(), operands=[input.ttype])
        single = input.ndim == 2
        x = F.unsqueeze(input, 1) if single else F.transpose(input, 0, 1) if self.batch_first else input
        steps, batch = x.shape[:2]
        if not steps:
            raise ShapeError("a sequence has no steps", op=self._get_name(), operands=[input.ttype])
        state = self._state(hx, batch, x, single)
        out, last = self._run(F.reshape(x, (steps * batch, x.shape[2])), [batch] * steps, state)
        result = F.reshape(out, (steps, batch, out.shape[1]))
        if single:
            return F.squeeze(result, 1), self._returned([F.squeeze(s, 1) for s in last])
        return F.transpose(result, 0, 1) if self.batch_first else result, self._returned(last)

    def _packed(self, input: PackedSequence, hx: Any) -> Any:
        data, _, order, back = input
        sizes = input.sizes()
        state = self._state(hx, sizes[0], data, False)
        if order is not None and hx is not None:
            state = [index_select(s, 1, order) for s in state]
        out, last = self._run(data, sizes, state)
        if back is not None:
            last = [index_select(s, 1, back) for s in last]
        return input.with_data(out), self._returned(last)

    def _returned(self, state: Sequence[Tensor]) -> Any:
        return tuple(state) if self.mode == "LSTM" else state[0]

    def _state(self, hx: Any, batch: int, x: Tensor, single: bool) -> list[Tensor]:
        """The initial states [layers * directions, batch, size], zeros without `hx`; checked."""
        name = self._get_name()
        if x.shape[-1] != self.input_size:
            raise ShapeError(f"expected {self.input_size} features per step", op=name, operands=[x.ttype])
        rows = self.num_layers * (2 if self.bidirectional else 1)
        widths = [self.proj_size or self.hidden_size, *([self.hidden_size] if self.mode == "LSTM" else [])]
        if hx is None:
            return [zeros(rows, batch, n, dtype=x.dtype, device=x.device) for n in widths]
        given = list(hx) if self.mode == "LSTM" else [hx]
        if len(given) != len(widths):
            raise ArgumentError("the state of an LSTM is (hidden, cell)", op=name)
        for s, n in zip(given, widths, strict=True):
            if s.shape != ((rows, n) if single else (rows, batch, n)):
                expected = [rows, n] if single else [rows, batch, n]
                raise ShapeError(f"expected an initial state of shape {expected}", op=name, operands=[s.ttype])
        return [F.unsqueeze(s, 1) for s in given] if single else given

    def _run(self, x: Tensor, sizes: Sequence[int], state: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """All layers over the rows `x`; outputs as rows, and the last states."""
        low = recurrent_dtype(x._layout.device, self.mode == "LSTM" and not self.proj_size)
        if low is None:
            return self._run_as(None, x, sizes, state)
        begin = [cast_to(s, low) for s in state]
        return self._run_as(low, cast_to(x, low), sizes, begin)

    def _run_as(
        self, low: DType | None, x: Tensor, sizes: Sequence[int], state: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """`_run`, with weights as `low` unless that is None."""
        last: list[State] = []
        for layer in range(self.num_layers):
            directions: list[list[Tensor]] = []
            for k, suffix in enumerate([f"l{layer}", f"l{layer}_reverse"][: 2 if self.bidirectional else 1]):
                begin = tuple([s[len(last)] for s in state])
                weights = self._weights(suffix) if low is None else self._weights(suffix).to(low)
                outputs, end = _layer(self.mode, weights, x, sizes, begin, reverse=k == 1)
                directions.append(outputs)
                last.append(end)
            steps = [F.cat(each, 1) if len(each) > 1 else each[0] for each in zip(*directions, strict=True)]
            x = F.cat(steps, 0)
            if self.dropout and layer < self.num_layers - 1:
                x = dropout(x, self.dropout, self.training)
        return x, [F.stack(list(each), 0) for each in zip(*last, strict=True)]

    def extra_repr(self) -> str:
        parts = [f"{self.input_size}, {self.hidden_size}"]
        defaults: dict[str, Any] = {
            "proj_size": 0, "num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0, "bidirectional": False
        }  # fmt: skip
        return ", ".join(parts + [f"{k}={getattr(self, k)}" for k, v in defaults.items() if getattr(self, k) != v])


class RNN(RNNBase):
    """h' = act(x @ W_ih.T + b_ih + h @ W_hh.T + b_hh), over time and layers; `nonlinearity`: "tanh" or "relu".

    Input [time, batch, features] ([batch, time, features] with `batch_first`, [time, features] alone, or packed);
    gives (outputs, last hidden state [layers * directions, batch, hidden]).
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        mode = _rnn_mode("RNN", nonlinearity)
        self.nonlinearity = nonlinearity
        super().__init__(
            mode, input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0, device, dtype
        )


def _rnn_mode(name: str, nonlinearity: str) -> str:
    if nonlinearity not in ("tanh", "relu"):
        raise InvalidValueError(f'nonlinearity must be "tanh" or "relu", got {nonlinearity!r}', op=name)
    return f"RNN_{nonlinearity.upper()}"


class LSTM(RNNBase):
    """Long short-term memory: gates i, f, g, o; c' = sigmoid(f) * c + sigmoid(i) * tanh(g), h' = sigmoid(o) * tanh(c').

    Input as for `RNN`; gives (outputs, (last hidden, last cell state)). With `proj_size` the hidden state is multiplied
    by a matrix [proj_size, hidden_size].
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        super().__init__("LSTM", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
                         proj_size, device, dtype)  # fmt: skip


class GRU(RNNBase):
    """Gated recurrent unit: gates r, z, n; n = tanh(x_n + r * h_n), h' = (h - n) * z + n. Input and result as for
    `RNN`."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        super().__init__(
            "GRU", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0, device, dtype
        )


def cell_step(
    mode: str, input: Any, state: Sequence[Any], ih: Any, hh: Any, bias_ih: Any = None, bias_hh: Any = None
) -> State:
    """The state of a cell after one step from `input`."""
    low = recurrent_dtype(input._layout.device, False)
    if low is not None:
        input, *state = [cast_to(x, low) for x in (input, *state)]
        weights = _Weights(ih, hh, bias_ih, bias_hh, None).to(low)
        return weights.step(mode, F.linear(input, weights.ih, weights.bias_ih), tuple(state))
    return _Weights(ih, hh, bias_ih, bias_hh, None).step(mode, F.linear(input, ih, bias_ih), tuple(state))


class RNNCellBase(Module):
    """One step of a recurrent layer: weight_ih, weight_hh, bias_ih, bias_hh."""

    weight_ih: Parameter
    weight_hh: Parameter
    bias_ih: Parameter | None
    bias_hh: Parameter | None

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool,
        num_chunks: int,
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        check_sizes(type(self).__name__, input_size=input_size, hidden_size=hidden_size)
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        rows = num_chunks * hidden_size
        self.weight_ih = Parameter(empty(rows, input_size, device=device, dtype=dtype))
        self.weight_hh = Parameter(empty(rows, hidden_size, device=device, dtype=dtype))
        self.register_parameter("bias_ih", Parameter(empty(rows, device=device, dtype=dtype)) if bias else None)
        self.register_parameter("bias_hh", Parameter(empty(rows, device=device, dtype=dtype)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        bound = 1 / math.sqrt(self.hidden_size) if self.hidden_size else 0.0
        for p in self.parameters():
            init.uniform_(p, -bound, bound)

    def _step(self, mode: str, input: Tensor, state: Sequence[Tensor] | None) -> State:
        """One step; a state of zeros when there is none."""
        name = self._get_name()
        if input.ndim not in (1, 2) or input.shape[-1] != self.input_size:
            raise ShapeError(f"expected [batch, {self.input_size}] or a vector", op=name, operands=[input.ttype])
        shape = (*input.shape[:-1], self.hidden_size)
        count = 2 if mode == "LSTM" else 1
        begin = (
            [zeros(shape, dtype=input.dtype, device=input.device) for _ in range(count)]
            if state is None
            else list(state)
        )
        for s in begin:
            if s.shape != shape:
                raise ShapeError(f"expected a state of shape {list(shape)}", op=name, operands=[s.ttype])
        return cell_step(mode, input, begin, self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        text += f", bias={self.bias}" if self.bias is not True else ""
        kind = getattr(self, "nonlinearity", "tanh")
        return text + (f", nonlinearity={kind}" if kind != "tanh" else "")


class RNNCell(RNNCellBase):
    """One step of `RNN`: (input [batch, features], hidden) -> hidden."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        _rnn_mode("RNNCell", nonlinearity)
        self.nonlinearity = nonlinearity
        super().__init__(input_size, hidden_size, bias, 1, device, dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        return self._step(_rnn_mode("RNNCell", self.nonlinearity), input, None if hx is None else [hx])[0]


class LSTMCell(RNNCellBase):
    """One step of `LSTM`: (input, (hidden, cell)) -> (hidden, cell)."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: DType | None = None
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 4, device, dtype)

    def forward(self, input: Tensor, hx: Sequence[Tensor] | None = None) -> tuple[Tensor, Tensor]:
        hidden, cell = self._step("LSTM", input, hx)
        return hidden, cell


class GRUCell(RNNCellBase):
    """One step of `GRU`: (input, hidden) -> hidden."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: DType | None = None
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 3, device, dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        return self._step("GRU", input, None if hx is None else [hx])[0]
