"""Hand-made evidence of a chain of layers, every number known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from neuroexapt.analysis import EdgeEvidence, Evidence, LayerEvidence, ModelEvidence


def reading(value: float, half: float = 0.0) -> Evidence:
    """A value with so much on either side of it."""
    return Evidence(
        value=value,
        spread=half / 2,
        low=value - half,
        high=value + half,
        num_samples=64,
        estimator="made up",
        num_bytes=0,
    )


def chain(
    *values: Mapping[str, Evidence], width: int = 16, skips: Sequence[tuple[int, int]] = (), notes: Sequence[str] = ()
) -> ModelEvidence:
    """Layers ``layer.0``, ``layer.1``, ... one behind the other, with skips past some; the last gives the outputs."""
    count = len(values)
    behind = {i: [i + 1] * (i + 1 < count) + [target for source, target in skips if source == i] for i in range(count)}
    layers = tuple(
        LayerEvidence(
            path=f"layer.{i}",
            kind="Linear",
            width=width,
            read_at="",
            successors=tuple(f"layer.{target}" for target in behind[i]),
            values=found,
        )
        for i, found in enumerate(values)
    )
    return ModelEvidence(layers=layers, num_samples=64, num_bytes=1000, flops=1000, notes=tuple(notes))


def edge(source: int, target: int, loss: Evidence) -> EdgeEvidence:
    """What is lost between two of them."""
    return EdgeEvidence(source=f"layer.{source}", target=f"layer.{target}", value=loss)
