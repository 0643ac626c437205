"""``PruneWeights``: single weights of a layer are masked, or masks made permanent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from neuroexapt.errors import SurgeryError
from neuroexapt.graph import ModelGraph, Role, canonical_names, is_meta, named_tensors
from neuroexapt.surgery.mutation import Mutation
from neuroexapt.surgery.places.neighbours import holders_of
from neuroexapt.surgery.plan import DECLARED, EXACT, Contents, Fill, MaskEdit, Plan, TensorEdit
from neuroexapt.surgery.writing.graft import own_class
from neuroexapt.surgery.writing.masks import effective

SHARE = 0.25  # of the weights that are left, which a candidate masks
FEWEST = 8  # weights in a layer that is a candidate


@dataclass(frozen=True, kw_only=True, slots=True)
class PruneWeights(Mutation):
    """Masks the smallest weights of a linear or convolutional layer through ``torch.nn.utils.prune``.

    Unstructured magnitude pruning (Han et al. 2015, Learning both Weights and Connections): shapes and FLOPs stay.
    What is masked stays masked; a larger ``amount`` later adds to it. The parameter is the same object with the same
    moments in its optimizer, its name becomes ``weight_orig``, and ``weight_mask`` joins the state dict. The change is
    declared, unless all that is masked was zero already.

    Attributes:
        layer: Path of the layer.
        amount: Fraction of its weights, in (0, 1), that are masked afterwards, those masked before included; ``None``
            with ``permanent``.
        permanent: Instead of masking, makes the masks part of the weight and takes them away: exact.
    """

    layer: str
    amount: float | None = None
    permanent: bool = False

    def __post_init__(self) -> None:
        is_number = isinstance(self.amount, int | float) and not isinstance(self.amount, bool)
        if not isinstance(self.layer, str) or not isinstance(self.permanent, bool):
            raise ValueError(f"needs layer: str and permanent: bool, found {self.layer!r} and {self.permanent!r}")
        if self.permanent != (self.amount is None) or not (self.permanent or (is_number and 0 < self.amount < 1)):  # type: ignore[operator]
            raise ValueError(f"needs either an amount in (0, 1) or permanent=True, found amount={self.amount!r}")

    @classmethod
    def ramp(cls, *, layer: str, final: float, num_steps: int, initial: float = 0.0) -> list[Self]:
        """Returns the values of a gradual pruning, to be applied one after the other while the model trains.

        ``s_t = s_f + (s_i - s_f) (1 - t / n)^3`` for t = 1 ... n: fast while much is redundant (Zhu & Gupta 2017, To
        Prune or Not to Prune, eq. 1).

        Args:
            layer: Path of the layer.
            final: Fraction that is masked in the end, in (0, 1).
            num_steps: n, at least 1.
            initial: Fraction that is masked before, less than ``final``.

        Raises:
            ValueError: A number is out of its range.
        """
        if not 0 <= initial < final < 1 or num_steps < 1:
            raise ValueError(f"needs 0 <= initial < final < 1 and num_steps >= 1: {initial}, {final}, {num_steps}")
        left = [(1 - t / num_steps) ** 3 for t in range(1, num_steps + 1)]
        return [cls(layer=layer, amount=final + (initial - final) * share) for share in left]

    @classmethod
    def candidates(cls, graph: ModelGraph, *, growth: float) -> Iterable[Self]:
        """A quarter of the weights that every layer has left."""
        tensors = named_tensors(graph.model)
        for path in dict.fromkeys(call.path for call in graph.calls):
            if _refusal(graph, path) or (size := tensors[_weight(graph.model, path)].numel()) < FEWEST:
                continue
            masked = _num_masked(graph.model, path) / size
            if _count(amount := round(masked + SHARE * (1 - masked), 6), size) > masked * size:
                yield cls(layer=path, amount=amount)

    def plan(self, graph: ModelGraph, generator: torch.Generator) -> Plan:
        """A new mask; or the weight under the mask rewritten, and the mask gone."""
        if refusal := _refusal(graph, self.layer):
            raise SurgeryError(f"{self.layer}: cannot prune its weights: {refusal}. Choose another layer.")
        weight, num_masked = _weight(graph.model, self.layer), _num_masked(graph.model, self.layer)
        tensors = named_tensors(graph.model)
        size = tensors[weight].numel()
        if self.amount is None:
            if not weight.endswith("_orig"):
                raise SurgeryError(f"{self.layer}: found no mask, needed one to make permanent. Give an amount first.")
            edit = TensorEdit(weight, (None,) * tensors[weight].dim(), Fill("zeros"), rewrite=_masked(weight))
            return Plan(tensors=(edit,), masks=(MaskEdit(self.layer, "weight", None),))
        count = _count(self.amount, size)
        if count <= num_masked:
            raise SurgeryError(
                f"{self.layer}: found {num_masked} of {size} weights masked already, needed fewer than {count}. "
                "Give a larger amount."
            )
        is_exact = not is_meta(graph.model) and int((effective(tensors, weight) == 0).sum()) >= count
        mask = MaskEdit(self.layer, "weight", _smallest(weight, count))
        return Plan(masks=(mask,), changes=EXACT if is_exact else DECLARED)

    def describe(self, graph: ModelGraph) -> str:
        """For example ``mask 30 % of the weights of head``."""
        if self.amount is None:
            return f"make the mask of {self.layer} permanent"
        return f"mask {100 * self.amount:.3g} % of the weights of {self.layer}"

    @property
    def place(self) -> str:
        """The layer."""
        return self.layer


def _refusal(graph: ModelGraph, path: str) -> str:
    """Why the weights of a layer cannot be masked, or ``""``."""
    if all(call.path != path for call in graph.calls):
        return "no module of that path runs, and only a module that runs applies its mask"
    module = graph.model.get_submodule(path)
    parameter = module._parameters.get("weight", module._parameters.get("weight_orig"))
    is_linear = isinstance(module, nn.Linear | nn.modules.conv._ConvNd) or "weight_mask" in module._buffers
    if not is_linear and not (parameter is not None and _maps(graph, parameter)):
        return f"it is a {own_class(module).__name__}, and only linear and convolutional layers are pruned"
    if parameter is None or ("weight_orig" in module._parameters and "weight_mask" not in module._buffers):
        return "its weight is computed from other tensors"
    is_shared = len(holders_of(graph, parameter)) > 1
    return "its weight is shared with another module, which would not see the mask" if is_shared else ""


def _maps(graph: ModelGraph, parameter: nn.Parameter) -> bool:
    """Whether a matrix reads one axis and makes another, whatever the module is called (``Conv1D`` of Transformers)."""
    name = canonical_names(graph.model)[id(parameter)]
    found = [graph.roles.get((name, dim), set()) for dim in range(parameter.dim())]
    return {Role.CONSUME, Role.PRODUCE} <= set().union(*found) and parameter.dim() > 1


def _weight(model: nn.Module, path: str) -> str:
    """Name of the parameter that holds a layer's weights."""
    name = "weight" if "weight" in model.get_submodule(path)._parameters else "weight_orig"
    return f"{path}.{name}".removeprefix(".")


def _num_masked(model: nn.Module, path: str) -> int:
    mask = model.get_submodule(path)._buffers.get("weight_mask")
    return 0 if mask is None or mask.is_meta else int((mask == 0).sum())


def _count(amount: float, size: int) -> int:
    return min(round(amount * size), size - 1)


def _smallest(weight: str, count: int) -> Contents:
    """The mask of all but the ``count`` smallest weights; those that are masked already come first."""

    def make(tensors: Mapping[str, Tensor]) -> Tensor:
        size = effective(tensors, weight).abs().double()
        mask = tensors.get(f"{weight.removesuffix('_orig')}_mask")
        ranked = (size if mask is None else torch.where(mask == 0, -1.0, size)).flatten().argsort(stable=True)
        kept = torch.ones_like(size).flatten()
        kept[ranked[:count]] = 0.0
        return kept.view(size.shape)

    return make


def _masked(weight: str) -> Contents:
    def make(tensors: Mapping[str, Tensor]) -> Tensor:
        return effective(tensors, weight)

    return make
