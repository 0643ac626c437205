"""Growth scores of all candidates at once, for a stated share of the FLOPs that training took since the last event."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_map

from neuroexapt.analysis import Evidence
from neuroexapt.analysis.scores import Score, sum_of
from neuroexapt.errors import BudgetError, InputError, NonFiniteActivationError
from neuroexapt.graph import ExampleInputs, FlopCount, ModelGraph, generators_kept
from neuroexapt.morphogenesis.assay import Assay, LossFunction
from neuroexapt.morphogenesis.ears import ears_of
from neuroexapt.morphogenesis.effort import LEAST_SAMPLES, Effort, Size, affordable, fits, flops_of, sized
from neuroexapt.morphogenesis.junctions import Place, piece_paths, places_of
from neuroexapt.morphogenesis.listening import Ear, Listener
from neuroexapt.morphogenesis.twins import Twin, packed, there_and_back
from neuroexapt.surgery.checking.structure import edited_twin, structure_of
from neuroexapt.surgery.writing.apply import write
from neuroexapt.surgery.writing.undo import UndoLog

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Scores:
    """What came out.

    Attributes:
        evidence: Of each candidate that has a score, by its number.
        reasons: Why others have none, by number.
        flops: What it took, counted.
        num_twins: Copies of the model that were looked at, one at a time.
        remark: Why nothing at all was scored, or ``""``.
    """

    evidence: dict[int, Evidence] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    flops: int = 0
    num_twins: int = 0
    remark: str = ""


@dataclass(frozen=True, slots=True)
class _Job:
    """One twin, and what is listened to for each candidate in it."""

    twin: Twin
    ears: dict[int, list[Ear]]


def score_all(
    graph: ModelGraph,
    found: Sequence[Assay],
    batches: Iterable[tuple[Any, Tensor]],
    loss_function: LossFunction,
    score: Score,
    effort: Effort,
) -> Scores:
    """Scores candidates that were planned from one graph.

    Runs in train mode on copies of the model; it, its gradients and the global generators stay as they are. Memory: one
    copy of the model at a time, its activations for one batch, and ``effort.max_bytes`` for each candidate on it.

    Args:
        graph: Of the model as it is.
        found: The candidates.
        batches: Of (inputs, targets) of training data.
        loss_function: (outputs, targets) -> mean loss.
        score: One of ``SCORES``.
        effort: What it may take.
    """
    reasons: dict[int, str] = {}
    jobs = _jobs(graph, found, score, effort, reasons)
    ears = [shapes for job in jobs for shapes in job.ears.values()]
    shapes = [[ear.shape for ear in each] for each in ears]
    pass_flops = sum(there_and_back(graph, job.twin) for job in jobs)
    size = affordable(pass_flops, shapes, score, effort)
    if size is None or not jobs:
        least = flops_of(pass_flops, shapes, score, LEAST_SAMPLES, 1)
        few = f"{LEAST_SAMPLES} samples take {least:,} FLOPs, allowed are {effort.max_flops:,} with at most "
        return Scores(reasons=reasons, remark=f"{few}{effort.max_samples} samples" if jobs else "")
    data, count, evidence = list(_first(batches, size.samples)), FlopCount(), {}
    if sum(len(targets) for _, targets in data) < LEAST_SAMPLES:
        return Scores(reasons=reasons, remark=f"fewer than {LEAST_SAMPLES} samples of evidence")
    for job in jobs:
        with count:
            _listen(graph, job, data, loss_function, size)
            for number, heard in job.ears.items():
                result = _valued(found[number].description, heard, score, effort.max_bytes)
                if isinstance(result, Evidence):
                    evidence[number] = result
                else:
                    reasons[number] = result
    for number, reason in reasons.items():
        logger.info("%s: no growth score: %s", found[number].description, reason)
    return Scores(evidence, reasons, count.flops, len(jobs))


def _jobs(
    graph: ModelGraph, found: Sequence[Assay], score: Score, effort: Effort, reasons: dict[int, str]
) -> list[_Job]:
    """Packs what can be scored into twins; writes down why the others cannot."""
    places: dict[int, tuple[Place, ...]] = {}
    ears: dict[int, list[Ear]] = {}
    for number, candidate in enumerate(found):
        known = places_of(graph, candidate.plan)
        if not isinstance(known, str):
            listening = _ears_alone(graph, candidate, known, score)
            if not isinstance(listening, str):
                ears[number], places[number] = listening, known
                if fits([ear.shape for ear in listening], LEAST_SAMPLES, 1, score, effort.max_bytes):
                    continue
                needed = sum(score.needed_bytes(sized(ear.shape, LEAST_SAMPLES, 1)) for ear in listening)
                logger.warning(
                    "%s: not scored: found %d bytes of rows and workspace, needed at most %d",
                    candidate.description,
                    needed,
                    effort.max_bytes,
                )
                listening = f"takes {needed:,} bytes, allowed are {effort.max_bytes:,}"
                del ears[number]
            known = listening
        reasons[number] = known
    numbers = list(ears)
    jobs = []
    cost = graph.cost.flops_per_sample
    for twin in packed([found[n].plan for n in numbers], [max(found[n].flop_delta, 0) for n in numbers], cost):
        members = [numbers[i] for i in twin.members]
        paths = iter(piece_paths(graph, twin.plan.grafts))
        heard = {n: _moved(ears[n], [next(paths) for _ in found[n].plan.grafts], found[n], graph) for n in members}
        jobs.append(_Job(twin, heard))
    return jobs


def _ears_alone(graph: ModelGraph, candidate: Assay, places: Sequence[Place], score: Score) -> list[Ear] | str:
    """What is listened to if the candidate is alone on a copy; asked of its structure, so that nothing is allocated."""
    structure = graph.model
    if candidate.plan.grafts:
        structure = structure_of(graph.model)
        write(structure, (), candidate.plan, UndoLog())
    return ears_of(graph, structure, places, piece_paths(graph, candidate.plan.grafts), score)


def _moved(ears: Sequence[Ear], paths: Sequence[str], candidate: Assay, graph: ModelGraph) -> list[Ear]:
    """Points ears at pieces that hang behind those of other candidates."""
    alone = piece_paths(graph, candidate.plan.grafts)
    moved = list(ears)
    for index, (before, after) in enumerate(zip(alone, paths, strict=True)):
        moved[index] = replace(ears[index], path=after + ears[index].path.removeprefix(before))
    return moved


def _listen(
    graph: ModelGraph, job: _Job, data: Sequence[tuple[Any, Tensor]], loss_function: LossFunction, size: Size
) -> None:
    twin = edited_twin(graph, job.twin.plan).train().requires_grad_(False)
    ears = [ear for each in job.ears.values() for ear in each]
    for ear in ears:
        ear.shape = sized(ear.shape, size.samples, size.rows)
    listener = Listener(twin, ears, seed=0)
    with generators_kept(seed=0), listener.installed():
        for inputs, targets in data:
            listener.hear(lambda: _loss(twin, inputs, targets, loss_function), len(targets))  # noqa: B023


def _loss(twin: nn.Module, inputs: Any, targets: Tensor, loss_function: LossFunction) -> Tensor:
    return loss_function(ExampleInputs((inputs,), {}).call(twin), targets)  # eagerly


def _valued(description: str, ears: Sequence[Ear], score: Score, max_bytes: int) -> Evidence | str:
    parts = []
    for ear in ears:
        junction = ear.junction()
        if junction is None:
            return f"{ear.path}: {ear.reason or 'nothing was heard'}"
        try:
            parts.append(score.measure(f"{description}, {ear.path}", junction, max_bytes))
        except (BudgetError, InputError, NonFiniteActivationError) as error:
            logger.warning("not scored: %s", error)
            return str(error)
    return sum_of(parts)


def _first(batches: Iterable[tuple[Any, Tensor]], samples: int) -> Iterator[tuple[Any, Tensor]]:
    """Yields batches until there are so many samples; the last one is cut."""
    left = samples
    for inputs, targets in batches:
        count = len(targets)
        kept = min(left, count)

        def cut(leaf: Any, count: int = count, kept: int = kept) -> Any:
            is_batch = isinstance(leaf, Tensor) and leaf.dim() > 0 and len(leaf) == count
            return leaf[:kept] if is_batch else leaf

        yield (inputs, targets) if kept == count else (tree_map(cut, inputs), targets[:kept])
        left -= kept
        if not left:
            return
