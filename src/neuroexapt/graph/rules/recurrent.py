"""Recurrent layers that run as one operator; all others arrive as matrix products and gates."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from neuroexapt.graph.rules.registry import Dims, RuleResult, rule
from neuroexapt.graph.space import Space, concatenation, cut, unify
from neuroexapt.graph.values import Call, NotUnderstood, Role, fresh_dims

_INTERNAL = "internal to a recurrent layer"
_GATES = {0: 1, 1: 1, 2: 4, 3: 3}  # by torch's number of the cell: RNN with ReLU, with tanh, LSTM, GRU


def gate_units(space: Space, gates: int) -> Space:
    """The units of a stack of gates, which are one axis: gate by gate, unit j of each belongs to cell j."""
    units: list[Space] = []
    rest: Space | None = space
    for _ in range(gates):
        unit, rest = cut(rest, space.size // gates) if rest is not None else (None, None)
        if unit is None:
            raise NotUnderstood(f"{space.size} rows for {gates} gates")
        unify(units[0] if units else unit, unit)
        units.append(unit)
    return units[0]


def _layer(call: Call, inputs: Space, weights: Sequence[Tensor], gates: int) -> Space:
    """One direction of one layer (Hochreiter & Schmidhuber 1997); returns the axis of its hidden state."""
    from_input, from_state, *biases = weights
    hidden = gate_units(call.dims(from_input)[0], gates)
    for tensor in (from_state, *biases):
        unify(gate_units(call.dims(tensor)[0], gates), hidden)
    unify(call.dims(from_input)[1], inputs)
    unify(call.dims(from_state)[1], hidden)
    for tensor in (from_input, from_state):
        call.role(tensor, 0, Role.PRODUCE)
        call.consume(tensor, 1, call.dims(tensor)[1])
    for tensor in biases:
        call.role(tensor, 0, Role.SHIFT)
    return hidden


@rule("mkldnn_rnn_layer")
def cpu_layer(call: Call) -> RuleResult:
    """One direction of one layer: x [time, batch, in], states [..., batch, hidden]."""
    x = call["input"]
    weights = [call[f"weight{i}"] for i in range(4 if call["has_biases"] else 2)]
    hidden = _layer(call, call.dims(x)[2], weights, _GATES[call["mode"]])
    for name in ("hx_", "cx_"):
        unify(call.dims(call[name])[-1], hidden)
    states = [(*call.dims(o)[:-1], hidden) for o in (call["hx_"], call["cx_"])]
    return [[*call.dims(x)[:2], hidden], *states, *(fresh_dims(o, _INTERNAL) for o in call.outputs[3:])]


@rule("_cudnn_rnn")
def cuda_layers(call: Call) -> RuleResult:
    """All layers and directions: every hidden state is a slice of one tensor, so all have one hidden axis."""
    if call.get("proj_size", 0):
        raise NotUnderstood("projections inside a recurrent layer")
    gates, stride = _GATES[call["mode"]], call["weight_stride0"]
    layers = [call["weight"][i : i + stride] for i in range(0, len(call["weight"]), stride)]
    directions = 2 if call["bidirectional"] else 1
    inputs, hidden = call.dims(call["input"])[-1], call.dims(call["hx"])[-1]
    for first in range(0, len(layers), directions):
        for weights in layers[first : first + directions]:
            unify(_layer(call, inputs, weights, gates), hidden)
        inputs = concatenation([hidden] * directions)
    states = [call.dims(call["hx"]) for _ in range(2 if call.get("cx") is not None else 1)]
    result: list[Dims] = [[*call.dims(call["input"])[:-1], inputs], *states]
    return [*result, *(fresh_dims(o, _INTERNAL) for o in call.outputs[len(result) :])]


@rule("_thnn_fused_lstm_cell", "_thnn_fused_gru_cell")
def fused_cell(call: Call) -> RuleResult:
    """The gates of one step, after both matrix products."""
    gates = 4 if "lstm" in call.operator else 3
    state = call["cx"] if gates == 4 else call["hx"]
    hidden = call.dims(state)[-1]
    for name in ("input_gates", "hidden_gates", "input_bias", "hidden_bias"):
        if call.get(name) is not None:
            unify(gate_units(call.dims(call[name])[-1], gates), hidden)
            call.role(call[name], call[name].dim() - 1, Role.SHIFT)
    states = [call.dims(state) for _ in range(2 if gates == 4 else 1)]
    return [*states, *(fresh_dims(o, _INTERNAL) for o in call.outputs[len(states) :])]
