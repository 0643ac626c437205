"""Plans for exchanging one operation for another through a gate, and what the standard operations look like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

from neuroexapt.errors import SurgeryError
from neuroexapt.graph import AttributeEdit, ModelGraph
from neuroexapt.surgery.pieces.gated_operation import ACTIVATIONS, POOLING
from neuroexapt.surgery.places.neighbours import own_tensor, runs_as_in_torch
from neuroexapt.surgery.places.sites import site_at
from neuroexapt.surgery.plan import Contents, Fill, GraftEdit, Plan, TensorEdit
from neuroexapt.surgery.replacement.folding import regrouped, separated
from neuroexapt.surgery.replacement.taps import Convolution, Placement, padding_of, place
from neuroexapt.surgery.writing.gather import gather
from neuroexapt.surgery.writing.graft import CHILD, Grafted, own_class

_ACTIVATION_CLASSES = {type(make()): name for name, make in ACTIVATIONS.items()}
_POOL = nn.modules.pooling


@dataclass(frozen=True, slots=True)
class ConvForm:
    """What an exchange may change in a convolution.

    Attributes:
        kernel: Its taps, for each dimension.
        dilation: The distance of its taps.
        groups: Of its channels.
        pad: Padding before each dimension; of the old one where this is a wish.
    """

    kernel: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    pad: tuple[int, ...]

    @staticmethod
    def of(module: Convolution) -> ConvForm:
        """Returns the form of a convolution as it is."""
        return ConvForm(tuple(module.kernel_size), tuple(module.dilation), module.groups, padding_of(module))

    def over(self, old: ConvForm) -> Placement | str:
        """Says how the taps of this kernel lie over those of another."""
        pairs = [list(zip(form.kernel, form.dilation, strict=True)) for form in (old, self)]
        return place(*pairs)

    def padding(self, placed: Placement) -> tuple[int, ...]:
        """Returns the padding that keeps the output's size."""
        return tuple(n + shift for n, shift in zip(self.pad, placed.shifts, strict=True))


def activation_of(module: nn.Module) -> str:
    """Returns the name of a plain activation, ``""`` of anything else."""
    name = _ACTIVATION_CLASSES.get(type(module), "")
    is_plain = vars(module).get("negative_slope", 0.01) == 0.01 and vars(module).get("alpha", 1.0) == 1.0
    return name if is_plain else ""


def pooling_of(module: nn.Module) -> str:
    """Returns ``max`` or ``average`` of a pooling module, ``""`` of anything else."""
    if isinstance(module, (_POOL._MaxPoolNd, _POOL._AdaptiveMaxPoolNd)):
        return "" if module.return_indices else "max"
    return "average" if isinstance(module, (_POOL._AvgPoolNd, _POOL._AdaptiveAvgPoolNd)) else ""


def gated(
    graph: ModelGraph,
    site: str,
    to: str,
    convolution: tuple[ConvForm, ConvForm, Placement] | None,
    ramp_steps: int,
    seed: int,
) -> Plan:
    """Hangs the new operation behind the old one, with its gate at 0.

    Args:
        graph: The model.
        site: Path of the old operation.
        to: Name of the new one.
        convolution: For a new convolution: the old form, the new one, and how it lies on the old one.
        ramp_steps: Training forwards from gate 0 to gate 1.
        seed: Of random weights.

    Raises:
        SurgeryError: The two operations do not take and give the same.
    """
    site_at(graph, site)
    module = graph.model.get_submodule(site)
    if isinstance(module, Grafted):
        raise _refused(site, to, "pieces hang on it, which would run on the old operation only")
    starts: Mapping[str, tuple[int, Contents]] = {}
    if to in ACTIVATIONS:
        rank, settings = 0, cast(dict[str, Any], {})
        if not activation_of(module) and type(module).__module__ != "torch.nn.modules.activation":
            raise _refused(site, to, f"it is a {own_class(module).__name__}, needed an activation")
    elif isinstance(module, Convolution) and to in ("conv", "separable"):
        rank, settings, starts = _new_convolution(graph, site, module, to, convolution)
    elif pooling_of(module) and to in ("max", "average"):
        to, rank, settings = _new_pooling(site, module, to)
    else:
        raise _refused(site, to, f"a {own_class(module).__name__} cannot be exchanged for it")
    arguments = {"operation": to, "rank": rank, "settings": settings, "ramp_steps": ramp_steps}
    graft = GraftEdit(site, "GatedOperation", arguments, seed)
    is_in_place = vars(module).get("inplace") is True  # it would overwrite what the new operation reads
    attributes = (AttributeEdit(site, "inplace", False),) if is_in_place else ()
    inside = f"{site}.{CHILD}.0.operation"
    edits = tuple(
        TensorEdit(f"{inside}.{name}", (None,) * rank_of, Fill("zeros"), rewrite=make)
        for name, (rank_of, make) in starts.items()
    )
    return Plan(attributes=attributes, grafts=(graft,), then=Plan(tensors=edits) if edits else None)


def _new_convolution(
    graph: ModelGraph,
    site: str,
    module: Convolution,
    to: str,
    forms: tuple[ConvForm, ConvForm, Placement] | None,
) -> tuple[int, dict[str, Any], dict[str, tuple[int, Contents]]]:
    """Returns rank, constructor arguments, and how the new weights start: as near to the old ones as they come."""
    if module.transposed:
        raise _refused(site, to, "it is a transposed convolution, for which only larger kernels are known")
    if not runs_as_in_torch(module):
        raise _refused(
            site, to, f"{own_class(module).__name__} has a forward of its own, so what it computes is not known"
        )
    if not own_tensor(graph, site, "weight"):
        raise _refused(site, to, "its weight is computed or shared")
    rank, weight, has_bias = len(module.kernel_size), f"{site}.weight", module.bias is not None
    settings: dict[str, Any] = {
        "in_channels": module.in_channels,
        "out_channels": module.out_channels,
        "kernel_size": list(module.kernel_size),
        "stride": list(module.stride),
        "padding": list(padding_of(module)),
        "dilation": list(module.dilation),
        "padding_mode": module.padding_mode,
        "bias": has_bias,
    }
    bias = f"{site}.bias"
    starts: dict[str, tuple[int, Contents]] = {}
    if forms is None:
        if module.groups != 1 or module.in_channels == 1:
            raise _refused(site, to, f"it has {module.groups} groups of channels, needed one of 2 channels or more")
        starts["depthwise.weight"] = (rank + 2, lambda tensors: separated(tensors[weight])[0])
        starts["pointwise.weight"] = (rank + 2, lambda tensors: separated(tensors[weight])[1])
        bias_name = "pointwise.bias"
    else:
        old, new, placed = forms
        settings |= {"kernel_size": list(new.kernel), "dilation": list(new.dilation), "groups": new.groups}
        settings["padding"] = list(new.padding(placed))
        starts["weight"] = (rank + 2, lambda tensors: _as_near(tensors[weight], old, new, placed))
        bias_name = "bias"
    if isinstance(module.padding, str):
        settings["padding"] = module.padding
    if has_bias:
        starts[bias_name] = (1, lambda tensors: tensors[bias])
    settings = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
    return rank, settings, starts


def _as_near(weight: Tensor, old: ConvForm, new: ConvForm, placed: Placement) -> Tensor:
    """The old weight in the new form: taps and blocks that both have are the same, others are zero."""
    return regrouped(gather(weight, (None, None, *placed.maps)), old.groups, new.groups)


def _new_pooling(site: str, module: nn.Module, to: str) -> tuple[str, int, dict[str, Any]]:
    """Returns name, rank and constructor arguments of pooling of the other kind over the same windows."""
    rank = next(rank for (_, rank), kind in POOLING.items() if isinstance(module, kind))
    if pooling_of(module) == to:
        raise _refused(site, to, "it is that already")
    if isinstance(module, (_POOL._AdaptiveMaxPoolNd, _POOL._AdaptiveAvgPoolNd)):
        return f"adaptive_{to}", rank, {"output_size": module.output_size}
    given: Any = module
    if set(_each(vars(module).get("dilation", 1))) != {1}:
        raise _refused(site, to, "its windows have gaps, and averages have none")
    settings = {name: getattr(given, name) for name in ("kernel_size", "stride", "padding", "ceil_mode")}
    if to == "average":
        settings["count_include_pad"] = False
    return to, rank, settings


def _each(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)


def _refused(site: str, to: str, reason: str) -> SurgeryError:
    return SurgeryError(f"{site}: cannot become {to}: {reason}. Choose another operation.")
