"""``measure_evidence``: every estimator on every layer, within a stated number of bytes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from neuroexapt.analysis.estimators import ESTIMATORS, Estimator
from neuroexapt.analysis.estimators.label_probe import LabelInformation
from neuroexapt.analysis.evidence import Evidence
from neuroexapt.analysis.information_loss import EdgeEvidence, information_loss
from neuroexapt.analysis.watching import LayerSample, Watched, WatchedLayer, watch, watched_layers
from neuroexapt.analysis.watching.checking import checked_batches
from neuroexapt.analysis.watching.gathering import together
from neuroexapt.analysis.watching.watch import LossFunction
from neuroexapt.config import EvidenceConfig
from neuroexapt.errors import BudgetError, ConfigError, InputError
from neuroexapt.graph import ModelGraph, trace, unwrapped

FEWEST = 4  # samples that show any spread
BIG = 10**7  # elements of one activation that are worth a note


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerEvidence:
    """What was measured of one layer.

    Attributes:
        path: Of the module.
        kind: Name of its class.
        width: Its units: output channels or features.
        read_at: The layer at whose input they were watched; ``""`` where that was the layer's own output.
        successors: Layers that its output reaches without passing through another.
        values: By name; ``meanings()`` says what each is.
        missing: Estimator to why it gave nothing here.
        num_positions: The most that a sample had at its output: pixels, tokens; 0 where that is not known.
    """

    path: str
    kind: str
    width: int
    read_at: str
    successors: tuple[str, ...]
    values: Mapping[str, Evidence]
    missing: Mapping[str, str] = field(default_factory=dict)
    num_positions: int = 0

    def to_json(self) -> dict[str, Any]:
        """Returns a JSON-ready dictionary."""
        return {
            "path": self.path,
            "kind": self.kind,
            "width": self.width,
            "read_at": self.read_at,
            "successors": list(self.successors),
            "values": {name: evidence.to_json() for name, evidence in self.values.items()},
            "missing": dict(self.missing),
            "num_positions": self.num_positions,
        }

    @staticmethod
    def from_json(record: dict[str, Any]) -> LayerEvidence:
        """Rebuilds what ``to_json`` returned."""
        values = {name: Evidence.from_json(v) for name, v in record["values"].items()}
        return LayerEvidence(**{**record, "successors": tuple(record["successors"]), "values": values})


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEvidence:
    """What was measured of a model.

    Attributes:
        layers: In the order in which they run.
        num_samples: The most that any layer was read from.
        num_bytes: Rows of all layers and the largest workspace.
        flops: Of the forward and backward passes.
        edges: What is lost about the label from each layer to each successor, where ``label_probe`` knows of
            both.
        notes: What the user should know: layers that are not watched, and what was done about big activations.
    """

    layers: tuple[LayerEvidence, ...]
    num_samples: int
    num_bytes: int
    flops: int
    edges: tuple[EdgeEvidence, ...] = ()
    notes: tuple[str, ...] = ()

    def layer(self, path: str) -> LayerEvidence:
        """Returns the evidence of one layer.

        Raises:
            InputError: It was not watched.
        """
        found = next((layer for layer in self.layers if layer.path == path), None)
        if found is None:
            known = ", ".join(layer.path for layer in self.layers[:12])
            raise InputError(f"{path}: found no evidence of this layer, needed one of {known}.")
        return found

    def to_json(self) -> dict[str, Any]:
        """Returns a JSON-ready dictionary."""
        return {
            "layers": [layer.to_json() for layer in self.layers],
            "num_samples": self.num_samples,
            "num_bytes": self.num_bytes,
            "flops": self.flops,
            "edges": [edge.to_json() for edge in self.edges],
            "notes": list(self.notes),
        }

    @staticmethod
    def from_json(record: dict[str, Any]) -> ModelEvidence:
        """Rebuilds what ``to_json`` returned."""
        layers = tuple(LayerEvidence.from_json(layer) for layer in record["layers"])
        edges = tuple(EdgeEvidence.from_json(edge) for edge in record["edges"])
        return ModelEvidence(**{**record, "layers": layers, "edges": edges, "notes": tuple(record["notes"])})


def measure_evidence(
    model: nn.Module,
    batches: Iterable[tuple[Any, Tensor]],
    loss_function: LossFunction = F.cross_entropy,
    config: EvidenceConfig | None = None,
    *,
    graph: ModelGraph | None = None,
    seed: int = 0,
) -> ModelEvidence:
    """Measures where a network is short of capacity and where it has too much.

    The model runs in eval mode and in isolation: parameters, their ``.grad``, buffers, hooks, modes and generators are
    afterwards as before. One forward and one backward pass, without gradients of weights, for each batch.

    Under ``torch.distributed`` all processes call it, each with batches of its own (model wrapped or not), and all get
    the evidence of the global batch: of ``config.num_samples`` of all, as many from each as the one with the fewest
    has. If one fails, all raise its error with its rank.

    Args:
        model: Any module.
        batches: Of (inputs, targets): data that were drawn at random, ``config.num_samples`` of them; what exceeds that
            is not read. Labels, int64 ``[n]``, are needed for what is said about labels.
        loss_function: (outputs, targets) -> mean loss.
        config: How many samples and bytes, and which estimators.
        graph: The model's, if there is one; traced on the first batch otherwise.
        seed: Of positions and projections.

    Raises:
        BudgetError: The rows of a layer do not fit its bytes; nothing has been allocated.
        ConfigError: An estimator is unknown.
        InputError: A batch is not (inputs, targets), or the loss is not one real number.
        ModelError: The model's forward, the loss or the backward pass failed; the message has their own error.
        NonFiniteActivationError: An activation or gradient is NaN or infinite; the message names the layer.
    """
    config, stream = config or EvidenceConfig(), checked_batches(batches)
    with together():
        estimators = _chosen(config)
        first = next(stream, None)
        if first is None:
            raise InputError(
                "evidence: found no batch, needed one of (inputs, targets) at least. Pass batches of data."
            )
        graph = graph or trace(unwrapped(model), first[0])
        layers, left_out = watched_layers(graph)
    watched = watch(
        graph.model,
        layers,
        chain([first], stream),
        loss_function,
        num_samples=config.num_samples,
        max_bytes=config.max_bytes_per_layer,
        views=frozenset().union(*(e.views for e in estimators)) | {"features"},
        seed=seed,
    )
    found = tuple(_measured(layer, watched, estimators, config) for layer in layers if layer.path in watched.samples)
    tells_labels = any(isinstance(e, LabelInformation) for e in estimators)
    used = [e.num_bytes for layer in found for e in layer.values.values()]
    held = {path: sample.num_bytes for path, sample in watched.samples.items()}
    return ModelEvidence(
        layers=found,
        num_samples=max(map(len, watched.samples.values()), default=0),
        num_bytes=sum(held.values()) + max(used, default=0),
        flops=watched.flops,
        edges=information_loss(layers, watched.samples, config.max_bytes_per_layer) if tells_labels else (),
        notes=(
            *_notes(watched),
            *_of_loss(watched.samples.values(), first[1], tells_labels),
            *(f"{path}: not watched: it {why}" for path, why in left_out.items()),
        ),
    )


def meanings() -> dict[str, str]:
    """Returns what every value means, with its range, by name."""
    return {name: meaning for e in ESTIMATORS.values() for name, meaning in e.values.items()}


def _chosen(config: EvidenceConfig) -> Sequence[Estimator]:
    if unknown := set(config.estimators or ()) - set(ESTIMATORS):
        raise ConfigError(f"evidence.estimators: unknown {sorted(unknown)}; known are {', '.join(ESTIMATORS)}.")
    return [e for name, e in ESTIMATORS.items() if config.estimators is None or name in config.estimators]


def _measured(
    layer: WatchedLayer,
    watched: Watched,
    estimators: Sequence[Estimator],
    config: EvidenceConfig,
) -> LayerEvidence:
    sample = watched.samples[layer.path]
    reasons = {"targets": "the targets are not one class for each sample", **watched.lost.get(layer.path, {})}
    values: dict[str, Evidence] = {}
    missing: dict[str, str] = {}
    for estimator in estimators:
        if unseen := sorted(view for view in estimator.views if not sample.has(view)):
            missing[estimator.name] = reasons.get(unseen[0], f"there are no {unseen[0]} of this layer")
            continue
        if len(sample) < FEWEST:
            missing[estimator.name] = f"found {len(sample)} samples, needed {FEWEST} at least"
            continue
        try:
            found = estimator.measure(layer.path, sample, config.max_bytes_per_layer)
        except BudgetError as error:
            missing[estimator.name] = str(error)
            continue
        values |= found
        if not found:
            missing[estimator.name] = "not defined here: too few units or samples, nothing that varies, or no gradient"
    return LayerEvidence(
        path=layer.path,
        kind=layer.kind,
        width=layer.width,
        read_at=layer.reader,
        successors=layer.successors,
        values=values,
        missing=missing,
        num_positions=watched.positions.get(layer.path, 0),
    )


def _of_loss(samples: Collection[LayerSample], targets: Tensor, tells_labels: bool) -> Iterator[str]:
    """Yields what is missing everywhere because of the targets or the loss."""
    if tells_labels and samples and all(sample.targets is None for sample in samples):
        dtype = str(targets.dtype).removeprefix("torch.")
        found = f"{dtype} {list(targets.shape)}"
        yield f"nothing is said about labels: found targets {found}, needed int64 [n], one class each"
    gradients = [sample.gradients for sample in samples if sample.gradients is not None]
    if gradients and not any(bool(rows.any()) for rows in gradients):
        yield "the gradient of the loss is 0 at every layer: nothing is said of it. Is it the right loss_function?"


def _notes(watched: Watched) -> list[str]:
    notes = []
    for path, size in watched.largest.items():
        if size > BIG and path in watched.samples:
            sample = watched.samples[path]
            notes.append(
                f"{path}: one activation has {size:,} elements; {len(sample)} rows of {sample.features.shape[1]} units "
                f"were read off it, {sample.num_bytes:,} bytes with everything else that is kept"
            )
    for path, reasons in watched.lost.items():
        told = {"features": reasons["features"]} if "features" in reasons else reasons
        for why in dict.fromkeys(told.values()):
            views = ", ".join(view for view, reason in told.items() if reason == why)
            notes.append(f"{path}: no {views}: {why.removeprefix(f'{path}: ')}")
    return notes
