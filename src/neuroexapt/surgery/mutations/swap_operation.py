"""``SwapOperation``: another operation in a module's place, exactly where it holds the old one, else faded in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import torch
from torch import nn

from neuroexapt.errors import SurgeryError
from neuroexapt.graph import AttributeEdit, ModelGraph
from neuroexapt.surgery.mutation import Mutation, draw_seed
from neuroexapt.surgery.pieces.gated_operation import ACTIVATIONS
from neuroexapt.surgery.places.neighbours import own_tensor, runs_as_in_torch, size_before
from neuroexapt.surgery.places.sites import is_map, site_refusal
from neuroexapt.surgery.plan import Fill, Plan, TensorEdit
from neuroexapt.surgery.replacement.exchanges import ConvForm, activation_of, gated, pooling_of
from neuroexapt.surgery.replacement.taps import Convolution, merged_groups
from neuroexapt.surgery.writing.graft import own_class

POOLING = ("max", "average")
OPERATIONS = ("conv", "separable", *POOLING, *ACTIVATIONS)
_NOUNS = {"separable": "a separable convolution", "max": "max pooling", "average": "average pooling"}
_LARGEST_OFFERED = 5
_OTHER_KIND = {"max": "average", "average": "max", "relu": "gelu", "tanh": "gelu"}


@dataclass(frozen=True, kw_only=True, slots=True)
class SwapOperation(Mutation):
    """Replaces the operation of a module by another.

    A convolution inside a larger or denser kernel, or in fewer groups, stays the same standard layer: the taps and
    blocks that it has keep their weights, the others begin at zero (Wei et al. 2016, Network Morphism, kernel size
    morphing). Any other exchange goes through a gate that is exact at 0, where it starts, and at 1, where it is after
    ``ramp_steps`` forwards in train mode; ``RemoveLayer(path=site, how="settle")`` then leaves the new operation alone.
    New convolutions start as the nearest ones to the old.

    Attributes:
        site: Path of the module.
        to: One of ``OPERATIONS``.
        kernel_size: Of the new convolution; as it is where ``None``.
        dilation: Of the new convolution; 1 where ``kernel_size`` is given and this is not, else as it is.
        groups: Of the new convolution; as it is where ``None``.
        ramp_steps: Training forwards from the old operation to the new one, >= 1; unused where the exchange is exact.
    """

    site: str
    to: str
    kernel_size: tuple[int, ...] | int | None = None
    dilation: tuple[int, ...] | int | None = None
    groups: int | None = None
    ramp_steps: int = 200

    def __post_init__(self) -> None:
        if not isinstance(self.site, str) or self.to not in OPERATIONS:
            raise ValueError(f"needs site: str and to: one of {', '.join(OPERATIONS)}, found {self.to!r}")
        for name in ("kernel_size", "dilation", "groups"):
            value: Any = getattr(self, name)
            value = tuple(value) if isinstance(value, list) else value
            object.__setattr__(self, name, value)
            given = () if value is None else value if isinstance(value, tuple) else (value,)
            if any(not isinstance(n, int) or isinstance(n, bool) or n < 1 for n in given):
                raise ValueError(f"needs {name}: integers >= 1, found {value!r}")
            if given and self.to != "conv":
                raise ValueError(f"{name} is for to='conv', found to={self.to!r}")
        if not isinstance(self.ramp_steps, int) or isinstance(self.ramp_steps, bool) or self.ramp_steps < 1:
            raise ValueError(f"needs ramp_steps: int >= 1, found {self.ramp_steps!r}")

    @classmethod
    def candidates(cls, graph: ModelGraph, *, growth: float) -> Iterable[Self]:
        """Convolutions to the next odd kernel around them, pooling to its other kind, activations to GELU."""
        for call in graph.calls:
            module = graph.model.get_submodule(call.path)
            if isinstance(module, Convolution):
                larger = _next_kernel(graph, call.path, module)
                if larger and runs_as_in_torch(module) and own_tensor(graph, call.path, "weight"):
                    yield cls(site=call.path, to="conv", kernel_size=larger, dilation=1)
            elif not site_refusal(graph, call) and not next(module.named_children(), None):
                other = _OTHER_KIND.get(activation_of(module) or pooling_of(module))
                if other in ACTIVATIONS or (other and is_map(call) and max(size_before(graph, call.path)[2:]) > 1):
                    yield cls(site=call.path, to=str(other))

    def plan(self, graph: ModelGraph, generator: torch.Generator) -> Plan:
        """Edits the kernel where that is exact, else hangs a gated operation behind the module."""
        module = self._module(graph)
        seed = draw_seed(generator)
        if self.to != "conv":
            return gated(graph, self.site, self.to, None, self.ramp_steps, seed)
        if not isinstance(module, Convolution) or not runs_as_in_torch(module):
            raise self._refused(f"it is a {own_class(module).__name__}, needed a convolution as in torch for to='conv'")
        old, new = self._forms(module)
        placed = new.over(old)
        if isinstance(placed, str):
            raise self._refused(placed)
        if old == new:
            raise self._refused("it is that already")
        if any(n < 0 for n in new.padding(placed)):
            raise self._refused(
                "the padding would be negative, the smaller kernel reads fewer positions than there are"
            )
        is_exact = placed.is_exact and old.groups % new.groups == 0
        if not is_exact:
            return gated(graph, self.site, self.to, (old, new, placed), self.ramp_steps, seed)
        if not own_tensor(graph, self.site, "weight"):
            raise self._refused("its weight is computed or shared, so its shape is not its own")
        positions = size_before(graph, self.site)[2:]
        if any(old_k < k and n == 1 for old_k, k, n in zip(old.kernel, new.kernel, positions, strict=False)):
            raise self._refused("its input has a single position there, so new taps would only ever read padding")
        columns, only = merged_groups(module.weight, old.groups, new.groups, new.kernel)
        edit = TensorEdit(f"{self.site}.weight", (None, columns, *placed.maps), Fill("zeros"), only=only)
        return Plan(tensors=(edit,), attributes=self._attributes(module, new, placed.shifts))

    def _attributes(self, module: Convolution, new: ConvForm, shifts: tuple[int, ...]) -> tuple[AttributeEdit, ...]:
        edit = partial(AttributeEdit, self.site)
        edits = [edit("kernel_size", new.kernel), edit("dilation", new.dilation), edit("groups", new.groups)]
        if module.padding != "same":
            edits.append(edit("padding", tuple(n + shift for n, shift in zip(new.pad, shifts, strict=True))))
        before, added = module._reversed_padding_repeated_twice, [n for n in reversed(shifts) for _ in range(2)]
        sides = tuple(n + m for n, m in zip(before, added, strict=True))
        return (*edits, edit("_reversed_padding_repeated_twice", sides))

    def _forms(self, module: Convolution) -> tuple[ConvForm, ConvForm]:
        old = ConvForm.of(module)
        rank = len(old.kernel)
        kernel = _each(self.kernel_size, rank) or old.kernel
        dilation = _each(self.dilation, rank) or ((1,) * rank if self.kernel_size else old.dilation)
        groups = self.groups or old.groups
        if len(kernel) != rank or len(dilation) != rank:
            raise self._refused(f"it has {rank} dimensions of positions, found {kernel} and {dilation}")
        if module.in_channels % groups or module.out_channels % groups:
            raise self._refused(f"{groups} groups do not divide its channels")
        return old, ConvForm(kernel, dilation, groups, old.pad)

    def _module(self, graph: ModelGraph) -> nn.Module:
        if all(call.path != self.site for call in graph.calls):
            raise SurgeryError(
                f"{self.site}: no module of that path runs in {type(graph.model).__name__}; "
                "needed a path from `model.named_modules()`."
            )
        return graph.model.get_submodule(self.site)

    def _refused(self, reason: str) -> SurgeryError:
        return SurgeryError(f"{self.site}: cannot become {self._wanted()}: {reason}. Choose another operation.")

    def _wanted(self) -> str:
        given = {"kernel": self.kernel_size, "dilation": self.dilation, "groups": self.groups}
        words = [f"{name} {value}" for name, value in given.items() if value is not None]
        return " with ".join([self.to, ", ".join(words)]) if words else self.to

    def describe(self, graph: ModelGraph) -> str:
        """For example ``turn blocks.0.conv1 from Conv2d into a 5x5 convolution``."""
        module = self._module(graph)
        words = _NOUNS.get(self.to, self.to)
        if self.to == "conv" and isinstance(module, Convolution):
            old, new = self._forms(module)
            words = f"a {_by(new.kernel)} convolution"
            words += f" of dilation {_by(new.dilation)}" if max(new.dilation) > 1 else ""
            words += f" in {new.groups} groups" if new.groups != old.groups else ""
        return f"turn {self.site} from {own_class(module).__name__} into {words}"

    @property
    def place(self) -> str:
        """The site."""
        return self.site


def _by(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes))


def _each(value: tuple[int, ...] | int | None, rank: int) -> tuple[int, ...]:
    return () if value is None else (value,) * rank if isinstance(value, int) else value


def _next_kernel(graph: ModelGraph, path: str, module: Convolution) -> tuple[int, ...]:
    """The dense odd kernel around this one, at most 5 wide and no wider than its input; ``()`` where there is none."""
    form, positions = ConvForm.of(module), size_before(graph, path)[2:]
    reach = [d * (k - 1) + 1 for k, d in zip(form.kernel, form.dilation, strict=True)]
    is_dense = reach == list(form.kernel)
    wanted = tuple(n + 2 if is_dense else n for n in reach)
    fits = len(positions) == len(wanted) and all(
        k % 2 and k <= min(n, _LARGEST_OFFERED) for k, n in zip(wanted, positions, strict=True)
    )
    return wanted if fits else ()
