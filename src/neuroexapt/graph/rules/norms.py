"""Normalisations: per channel (batch norm) or reading across an axis (layer, group, RMS norm)."""

from __future__ import annotations

from neuroexapt.graph.rules.halves import halved
from neuroexapt.graph.rules.registry import RuleResult, rule
from neuroexapt.graph.space import unify
from neuroexapt.graph.values import Call, Role, fresh_dims

_BATCH_NORM_ROLES = {
    "weight": Role.NORM_GAIN,
    "bias": Role.SHIFT,
    "running_mean": Role.MEAN,
    "running_var": Role.VARIANCE,
}


@rule(
    "native_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training",
    "_native_batch_norm_legit_functional",
    "_batch_norm_with_update",
    "_batch_norm_no_update",
    "cudnn_batch_norm",
    "miopen_batch_norm",
)
def batch_norm(call: Call) -> RuleResult:
    """Statistics over batch and positions, one per channel (Ioffe & Szegedy 2015): channels stay independent.

    Positions may be an axis of the model: where a weight is standardised by a batch norm over its filters.
    """
    x = call["input"]
    channels = call.dims(x)[1]
    call.reads_across([space for dim, space in enumerate(call.dims(x)) if dim != 1])
    for name, role in _BATCH_NORM_ROLES.items():
        tensor = call.get(name)
        if tensor is not None and tensor.shape[0] != 1:
            unify(call.dims(tensor)[0], channels)
            call.role(tensor, 0, role)
    per_channel = [(channels,) if o.shape == (x.shape[1],) else fresh_dims(o) for o in call.outputs[1:]]
    return [call.dims(x), *per_channel]


@rule("native_layer_norm", "_fused_rms_norm", "rms_norm")
def layer_norm(call: Call) -> RuleResult:
    """Statistics across the normalised dimensions (Ba et al. 2016): new units change all old ones."""
    x, rank = call["input"], len(call["normalized_shape"])
    normalised = call.dims(x)[-rank:]
    call.reads_across(normalised)
    for name, role in (("weight", Role.NORM_GAIN), ("bias", Role.SHIFT)):
        tensor = call.get(name)
        if tensor is not None:
            for dim, space in enumerate(call.dims(tensor)):
                if tensor.shape[dim] != 1:
                    unify(space, normalised[dim])
                    call.role(tensor, dim, role)
    return [call.dims(x), *(fresh_dims(o, "statistics of a norm") for o in call.outputs[1:])]


@rule("native_group_norm")
def group_norm(call: Call) -> RuleResult:
    """Statistics across the channels of a group (Wu & He 2018): whole groups are independent of each other."""
    x, groups = call["input"], call["group"]
    batch, channels = call.dims(x)[:2]
    count, units = halved(call, channels, groups)
    call.reads_across([units, *call.dims(x)[2:]])
    for name, role in (("weight", Role.NORM_GAIN), ("bias", Role.SHIFT)):
        tensor = call.get(name)
        if tensor is not None and tensor.shape[0] != 1:
            unify(call.dims(tensor)[0], channels)
            call.role(tensor, 0, role)
    return [call.dims(x), *((batch, count) for _ in call.outputs[1:])]


@rule("_weight_norm_interface")
def weight_norm(call: Call) -> RuleResult:
    """g v / |v|, with the norm over all dimensions but one (Salimans & Kingma 2016, eq. 2)."""
    v, g = call["v"], call["g"]
    for dim, (space, gain) in enumerate(zip(call.dims(v), call.dims(g), strict=True)):
        if g.shape[dim] != 1:
            unify(space, gain)
            call.role(g, dim, Role.GAIN)
    call.reads_across(space for dim, space in enumerate(call.dims(v)) if g.shape[dim] == 1)
    return [call.dims(v), *(call.dims(g) for _ in call.outputs[1:])]
