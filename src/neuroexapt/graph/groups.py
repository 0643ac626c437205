"""Channel groups: the parameter slices that must change together, and what may be done to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from neuroexapt.graph.copies import Copies
from neuroexapt.graph.growth import Growth, Silent
from neuroexapt.graph.positions import occurrences
from neuroexapt.graph.space import Space, leaves
from neuroexapt.graph.values import Role, Value


@dataclass(frozen=True, slots=True)
class Member:
    """One dimension of one parameter or buffer that runs over the group's axis.

    Attributes:
        path: Name of the parameter or buffer.
        dim: Dimension of it.
        slices: Ranges of that dimension that vary with the axis; the whole dimension in the plain case.
        roles: What the dimension does to the axis.
    """

    path: str
    dim: int
    slices: tuple[slice, ...]
    roles: frozenset[Role]

    @property
    def module(self) -> str:
        """Path of the module that owns the parameter."""
        return self.path.rpartition(".")[0]


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """An axis of the model with everything that holds it.

    Attributes:
        name: Stable name: the first producer's module path, or ``parameter[dim]`` where that is not unique.
        size: Number of units.
        members: All parameter dimensions that run over the axis.
        readers: Operations that mix its units (softmax, layer norm, mean), in words.
        pin_reason: Why the axis cannot be edited at all, or ``""``.
    """

    name: str
    size: int
    members: tuple[Member, ...]
    readers: tuple[str, ...]
    pin_reason: str
    leaf: Space = field(repr=False)
    _growth: Callable[[Space], Growth | str] = field(repr=False)
    _refusal: Callable[[ChannelGroup], str] = field(repr=False)

    @property
    def producers(self) -> tuple[str, ...]:
        """Modules whose parameters make the units."""
        return self._modules_with(Role.PRODUCE)

    @property
    def consumers(self) -> tuple[str, ...]:
        """Modules whose parameters read the units."""
        return self._modules_with(Role.CONSUME)

    @property
    def can_prune(self) -> bool:
        """Whether units can be taken away."""
        return not self._prune_reason

    @property
    def can_widen(self) -> bool:
        """Whether units can be added without changing the function."""
        return not self.reason

    @property
    def reason(self) -> str:
        """Why the group cannot be widened, in words, or ``""``."""
        return self.static_reason or self._refusal(self)

    @property
    def static_reason(self) -> str:
        """Why no size at all would do, as far as the trace alone can tell; the forward has not been rehearsed."""
        if self.pin_reason:
            return self.pin_reason
        growth = self._growth(self.leaf)
        if isinstance(growth, str):
            return growth
        if growth == Silent(frozenset()) and not self.consumers:
            return "no parameter reads the axis, so new units could not be silent"
        return ""

    @property
    def grows_by_factor(self) -> bool:
        """Whether its units can only be copied, each the same number of times, because something reads across them."""
        return not self.pin_reason and isinstance(self._growth(self.leaf), Copies)

    @property
    def _prune_reason(self) -> str:
        return self.pin_reason or ("a single unit" if self.size < 2 else "") or self._refusal(self)

    def _modules_with(self, role: Role) -> tuple[str, ...]:
        return tuple(dict.fromkeys(m.module for m in self.members if role in m.roles))


def build_groups(
    parameters: Mapping[str, Value],
    roles: Mapping[tuple[str, int], set[Role]],
    growth: Callable[[Space], Growth | str],
    refusal: Callable[[ChannelGroup], str],
) -> tuple[ChannelGroup, ...]:
    """Collects the leaf spaces of all parameters into groups, in the order of the parameters."""
    members: dict[Space, list[Member]] = {}
    for path, value in parameters.items():
        for dim, space in enumerate(value.dims):
            for leaf in dict.fromkeys(leaves(space)):
                if leaf.size > 1:
                    found = frozenset(roles.get((path, dim), ()))
                    members.setdefault(leaf, []).append(Member(path, dim, tuple(occurrences(space, leaf)), found))
    kept = {leaf: found for leaf, found in members.items() if any(m.roles for m in found)}
    names = _names(kept, parameters)
    return tuple(
        ChannelGroup(
            name=names[leaf],
            size=leaf.size,
            members=tuple(found),
            readers=tuple(sorted(map(str, leaf.readers))),
            pin_reason=leaf.pin_reason or "",
            leaf=leaf,
            _growth=growth,
            _refusal=refusal,
        )
        for leaf, found in kept.items()
    )


def _names(members: Mapping[Space, Sequence[Member]], parameters: Mapping[str, Value]) -> dict[Space, str]:
    names: dict[Space, str] = {}
    for leaf, found in members.items():
        first = next((m for m in found if Role.PRODUCE in m.roles), found[0])
        inside = list(dict.fromkeys(x for x in leaves(parameters[first.path].dims[first.dim]) if x in members))
        suffix = f".{inside.index(leaf)}" if len(inside) > 1 else ""
        plain = first.path.endswith(".weight") and first.dim == 0 and not suffix
        short = first.module if plain and first.module not in names.values() else ""
        names[leaf] = short or f"{first.path}[{first.dim}]{suffix}"
    return names
