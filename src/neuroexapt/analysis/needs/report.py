"""What ``bottlenecks`` returns: needs of every layer, and information lost along every edge, as one value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from neuroexapt.analysis.information_loss import EdgeEvidence
from neuroexapt.errors import InputError

STRONGEST = 5  # needs that a summary tells


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """How much one layer needs one kind of change, compared with the other layers of the model.

    Attributes:
        score: Mean percentile of its signals, in [0, 1]: 0.5 is the middle of the model.
        is_raised: Whether it stands out; with hysteresis, see ``bottlenecks``.
        reasons: Every signal in words with its value, interval and percentile; what speaks for the need most, first,
            what only adds to others, last.
    """

    score: float
    is_raised: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerNeeds:
    """The needs of one layer.

    Attributes:
        path: Of the module.
        width: Its units.
        needs: By name, as in ``analysis.needs.table``; one that no signal speaks for is absent.
    """

    path: str
    width: int
    needs: Mapping[str, Need]

    @property
    def strongest(self) -> str:
        """The name of the strongest need, a raised one first; ``""`` where there is none."""
        return max(self.needs, key=lambda name: (self.needs[name].is_raised, self.needs[name].score), default="")


@dataclass(frozen=True, slots=True, kw_only=True)
class BottleneckReport:
    """Where a model is short of something, layer by layer.

    Attributes:
        layers: In the order in which they run.
        edges: Those of the executed graph whose loss was measured.
        notes: What limits the comparison.
    """

    layers: tuple[LayerNeeds, ...]
    edges: tuple[EdgeEvidence, ...] = ()
    notes: tuple[str, ...] = ()

    def layer(self, path: str) -> LayerNeeds:
        """Returns the needs of one layer.

        Raises:
            InputError: It is not in the report.
        """
        found = next((layer for layer in self.layers if layer.path == path), None)
        if found is None:
            known = ", ".join(layer.path for layer in self.layers[:12])
            raise InputError(f"{path}: found no needs of this layer, needed one of {known}.")
        return found

    def strongest(self) -> Iterator[tuple[LayerNeeds, str, Need]]:
        """Yields (layer, name, need) of all raised needs, the strongest first."""
        raised = [(layer, name, need) for layer in self.layers for name, need in layer.needs.items() if need.is_raised]
        yield from sorted(raised, key=lambda entry: -entry[2].score)

    def summary(self) -> str:
        """Returns the strongest needs in words, one line each, and the edge that loses most."""
        raised = list(self.strongest())
        lines = [f"{layer.path}: {name} ({need.score:.2f}): {need.reasons[0]}" for layer, name, need in raised]
        if len(lines) > STRONGEST:
            lines[STRONGEST:] = [f"and {len(lines) - STRONGEST} more"]
        if not lines:
            lines = ["no layer stands out from the others"]
        told = [edge for edge in self.edges if edge.value.low > 0]
        if told:
            edge = max(told, key=lambda e: e.value.value)
            lines.append(
                f"{edge.source} → {edge.target} loses most: {edge.value.value:.2g} nats about the label "
                f"[{edge.value.low:.2g}, {edge.value.high:.2g}]"
            )
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Returns a JSON-ready dictionary."""
        return {
            "layers": [
                {
                    "path": layer.path,
                    "width": layer.width,
                    "needs": {
                        name: {**asdict(need), "reasons": list(need.reasons)} for name, need in layer.needs.items()
                    },
                }
                for layer in self.layers
            ],
            "edges": [edge.to_json() for edge in self.edges],
            "notes": list(self.notes),
        }

    @staticmethod
    def from_json(record: dict[str, Any]) -> BottleneckReport:
        """Rebuilds what ``to_json`` returned."""
        layers = tuple(
            LayerNeeds(
                path=layer["path"],
                width=layer["width"],
                needs={
                    name: Need(**{**need, "reasons": tuple(need["reasons"])}) for name, need in layer["needs"].items()
                },
            )
            for layer in record["layers"]
        )
        edges = tuple(EdgeEvidence.from_json(edge) for edge in record["edges"])
        return BottleneckReport(layers=layers, edges=edges, notes=tuple(record["notes"]))
