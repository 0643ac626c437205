"""The answer of a trace: everything that can be asked about a model's axes. It never edits."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

from torch import Tensor, nn

from neuroexapt.errors import InputError
from neuroexapt.graph.copies import Copies
from neuroexapt.graph.cost import Cost
from neuroexapt.graph.equations import Equation
from neuroexapt.graph.groups import ChannelGroup, build_groups
from neuroexapt.graph.growth import Growth, growth
from neuroexapt.graph.isolation import settings_of
from neuroexapt.graph.positions import sources
from neuroexapt.graph.rehearsal import Rehearsal
from neuroexapt.graph.resizing import Resizability, Resizer, Resizing
from neuroexapt.graph.space import Space, leaves
from neuroexapt.graph.tape import Tape
from neuroexapt.graph.values import Role

_NUM_NAMED = 12  # groups in a message


class ModelGraph:
    """The axes of a model.

    Attributes:
        model: The traced model, untouched.
        inputs: The example inputs.
        cost: Parameters, FLOPs and activation bytes on these inputs.
        parameters: Index spaces of every parameter and buffer, by canonical name.
        output_shapes: Shapes of all tensors in the model's output.
        calls: Every execution of a module in eval mode, in order.
        tape: Every operator of the forward in eval mode.
        unknown_operators: Operators without a rule and why they pinned what they touched.
        notes: What the user should know about this trace.
        objective: Mean loss of a model on calibration data, if the caller gave one.
    """

    def __init__(
        self,
        *,
        rehearsal: Rehearsal,
        equations: Sequence[Equation],
        roles: dict[tuple[str, int], set[Role]],
        cost: Cost,
        tape: Tape,
        outputs: tuple[int, ...],
        unknown_operators: dict[str, str],
        notes: tuple[str, ...],
        objective: Callable[[nn.Module], Tensor] | None = None,
    ) -> None:
        self.model = rehearsal.model
        self.inputs = rehearsal.inputs
        self.parameters = rehearsal.parameters
        self.calls = rehearsal.calls
        self.output_shapes = rehearsal.output_shapes
        self.cost = cost
        self.unknown_operators = unknown_operators
        self.notes = notes
        self.objective = objective
        self.roles = roles
        self.tape = tape
        self._settings = settings_of(self.model)
        self._outputs = outputs
        self._growths: dict[Space, Growth | str] = {}
        self._resizings: dict[tuple[tuple[Space, int], ...], Resizing] = {}
        self._resizer = Resizer(rehearsal, equations, self._is_copied)

    @cached_property
    def groups(self) -> tuple[ChannelGroup, ...]:
        """All channel groups, in the order of the parameters."""
        return build_groups(self.parameters, self.roles, self.growth, self._refusal)

    def group(self, name: str) -> ChannelGroup:
        """Returns a group by its name, or by ``parameter[dim]`` or the module path of any of its producers.

        Raises:
            InputError: No group, or more than one, goes by that name.
        """
        by_name = {group.name: group for group in self.groups}
        if name in by_name:
            return by_name[name]
        found = [g for g in self.groups if name in g.producers or any(f"{m.path}[{m.dim}]" == name for m in g.members)]
        if len(found) == 1:
            return found[0]
        known = ", ".join(list(by_name)[:_NUM_NAMED]) + (", ..." if len(by_name) > _NUM_NAMED else "")
        problem = f"several groups ({', '.join(g.name for g in found)})" if found else "no group"
        near = difflib.get_close_matches(name, [g.name for g in found] or by_name, n=1)
        hint = f"Did you mean {near[0]}?" if near else "`graph.groups` lists them all."
        raise InputError(f"{name}: {problem} by that name. Known are {known}. {hint}")

    def explain(self, path: str, dim: int) -> str:
        """Says in words which groups a parameter dimension belongs to and what keeps them from changing."""
        if path not in self.parameters or not 0 <= dim < len(self.parameters[path].dims):
            raise InputError(f"{path}[{dim}]: no such parameter dimension in {type(self.model).__name__}.")
        inside = set(leaves(self.parameters[path].dims[dim]))
        lines = [f"{g.name}: {g.reason or 'free'}" for g in self.groups if g.leaf in inside]
        return "; ".join(lines) or f"{path}[{dim}]: not a channel axis"

    def sources(self, path: str, edits: Mapping[Space, Tensor]) -> tuple[Tensor | None, ...]:
        """For each dimension of a parameter, where its indices come from after the edits; ``None`` where unchanged."""
        result: list[Tensor | None] = []
        for space in self.parameters[path].dims:
            touched = any(leaf in edits for leaf in leaves(space))
            result.append(sources(space, edits) if touched else None)
        return tuple(result)

    def is_current(self) -> bool:
        """Whether the settings that the model's modules keep are those of the trace."""
        return self._settings == settings_of(self.model)

    def growth(self, leaf: Space) -> Growth | str:
        """Returns how the units of an axis can grow in number, or why they cannot."""
        if leaf not in self._growths:
            self._growths[leaf] = growth(self.tape, leaf, self._outputs)
        return self._growths[leaf]

    def resizing(self, sizes: Mapping[Space, int]) -> Resizing:
        """Says what resizing these leaves entails, by the sizes in the user's code and a run on fakes.

        Each question is answered by one run: an edit is planned to be scored, to be forecast and to be made.
        """
        asked = tuple(sizes.items())
        if asked not in self._resizings:
            self._resizings[asked] = self._resizer.at(sizes)
        return self._resizings[asked]

    def size_from(self, group: ChannelGroup, wanted: int) -> int:
        """Returns the first number of units, from ``wanted`` on, that the sizes in the user's code admit.

        Where none is near, it is the next multiple of the group's size. Nothing is run.
        """
        return self._resizer.size_from(group.leaf, wanted)

    def sizes_below(self, group: ChannelGroup, wanted: int) -> Mapping[Space, int]:
        """Returns new sizes, near ``wanted``, of a group's axis and of all that the code ties to it.

        Empty where the sizes in the user's code admit none. Nothing is run.
        """
        return self._resizer.shrunk(group.leaf, wanted)

    def freeze(self, group: ChannelGroup, reason: str) -> None:
        """Pins a group, for example because a self-test found it wrong."""
        group.leaf.pin_reason = reason
        self._resizings.clear()
        for name in ("groups", "_resizability"):
            self.__dict__.pop(name, None)

    @cached_property
    def _resizability(self) -> Resizability:
        return self._resizer.resizability([g.leaf for g in self.groups if not g.pin_reason])

    def _is_copied(self, leaf: Space) -> bool:
        return isinstance(self.growth(leaf), Copies)

    def _refusal(self, group: ChannelGroup) -> str:
        if group.leaf in self._resizability.refused:
            return self._resizability.refused[group.leaf]
        followers = set(self._resizability.followers.get(group.leaf, ())) - {group.leaf}
        tied = [other for other in self.groups if other.leaf in followers and other.static_reason]
        return f"{tied[0].name} must grow with it, and {tied[0].static_reason}" if tied else ""
