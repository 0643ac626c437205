"""``score_all``: growth scores of all candidates at once, for a stated share of the FLOPs that training took."""

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
from neuroexapt.morphogenesis.scoring.effort import LEAST_SAMPLES, Effort, Size, affordable, fits, flops_of, sized
from neuroexapt.morphogenesis.scoring.junctions import piece_paths, places_of
from neuroexapt.morphogenesis.scoring.recorder import Recorder
from neuroexapt.morphogenesis.scoring.recordings import Recording, recordings_of
from neuroexapt.morphogenesis.scoring.twins import Twin, packed, there_and_back
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
    """One twin, and what is recorded for each candidate in it."""

    twin: Twin
    recordings: dict[int, list[Recording]]


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
    shapes = [[recording.shape for recording in each] for job in jobs for each in job.recordings.values()]
    pass_flops = sum(there_and_back(graph, job.twin) for job in jobs)
    size = affordable(pass_flops, shapes, score, effort)
    if size is None or not jobs:
        least = flops_of(pass_flops, shapes, score, LEAST_SAMPLES, 1)
        few = f"{LEAST_SAMPLES} samples take {least:,} FLOPs, allowed are {effort.max_flops:,}"
        return Scores(reasons=reasons, remark=f"{few}; raise score_fraction to allow more" if jobs else "")
    data, count, evidence = list(_first(batches, size.samples)), FlopCount(), {}
    if sum(len(targets) for _, targets in data) < LEAST_SAMPLES:
        return Scores(reasons=reasons, remark=f"fewer than {LEAST_SAMPLES} samples of evidence")
    for job in jobs:
        with count:
            _record(graph, job, data, loss_function, size)
            for number, recorded in job.recordings.items():
                result = _valued(found[number].description, recorded, score, effort.max_bytes)
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
    alone: dict[int, list[Recording]] = {}
    for number, candidate in enumerate(found):
        recordings = _alone(graph, candidate, score, effort.max_bytes)
        if isinstance(recordings, str):
            reasons[number] = recordings
        else:
            alone[number] = recordings
    numbers = list(alone)
    plans = [found[n].plan for n in numbers]
    added_flops = [max(found[n].flop_delta, 0) for n in numbers]
    jobs = []
    for twin in packed(plans, added_flops, graph.cost.flops_per_sample):
        paths = iter(piece_paths(graph, twin.plan.grafts))
        together = {}
        for n in (numbers[i] for i in twin.members):
            grafts = found[n].plan.grafts
            moved = [next(paths) for _ in grafts]
            together[n] = _moved(alone[n], piece_paths(graph, grafts), moved)
        jobs.append(_Job(twin, together))
    return jobs


def _alone(graph: ModelGraph, candidate: Assay, score: Score, max_bytes: int) -> list[Recording] | str:
    """What is recorded of a candidate that is alone on a copy, or why nothing is; found without allocating anything."""
    places = places_of(graph, candidate.plan)
    if isinstance(places, str):
        return places
    structure = graph.model
    if candidate.plan.grafts:
        structure = structure_of(graph.model)
        write(structure, (), candidate.plan, UndoLog())
    recordings = recordings_of(graph, structure, places, piece_paths(graph, candidate.plan.grafts), score)
    if isinstance(recordings, str):
        return recordings
    shapes = [recording.shape for recording in recordings]
    if fits(shapes, LEAST_SAMPLES, 1, score, max_bytes):
        return recordings
    needed = sum(score.needed_bytes(sized(shape, LEAST_SAMPLES, 1)) for shape in shapes)
    logger.warning(
        "%s: not scored: found %d bytes of rows and workspace, needed at most %d",
        candidate.description,
        needed,
        max_bytes,
    )
    return f"takes {needed:,} bytes, allowed are {max_bytes:,}"


def _moved(recordings: Sequence[Recording], before: Sequence[str], after: Sequence[str]) -> list[Recording]:
    """Points recordings at pieces that hang behind those of other candidates; a piece has one recording."""
    moved = list(recordings)
    for index, (old, new) in enumerate(zip(before, after, strict=True)):
        moved[index] = replace(recordings[index], path=new + recordings[index].path.removeprefix(old))
    return moved


def _record(
    graph: ModelGraph, job: _Job, data: Sequence[tuple[Any, Tensor]], loss_function: LossFunction, size: Size
) -> None:
    twin = edited_twin(graph, job.twin.plan).train().requires_grad_(False)
    recordings = [recording for each in job.recordings.values() for recording in each]
    for recording in recordings:
        recording.shape = sized(recording.shape, size.samples, size.rows)
    recorder = Recorder(twin, recordings, seed=0)
    with generators_kept(seed=0), recorder.installed():
        for inputs, targets in data:
            recorder.record(lambda: _loss(twin, inputs, targets, loss_function), len(targets))  # noqa: B023


def _loss(twin: nn.Module, inputs: Any, targets: Tensor, loss_function: LossFunction) -> Tensor:
    return loss_function(ExampleInputs((inputs,), {}).call(twin), targets)  # eagerly


def _valued(description: str, recordings: Sequence[Recording], score: Score, max_bytes: int) -> Evidence | str:
    parts = []
    for recording in recordings:
        junction = recording.junction()
        if junction is None:
            return f"{recording.path}: {recording.reason or 'nothing was recorded'}"
        try:
            parts.append(score.measure(f"{description}, {recording.path}", junction, max_bytes))
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
