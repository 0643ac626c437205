"""``Surgeon``: plan, apply, verify, and take back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from neuroexapt.errors import SurgeryError
from neuroexapt.graph import (
    ExampleInputs,
    ModelGraph,
    distrusted_groups,
    forget_compiled_code,
    is_inexact,
    is_meta,
    trace,
    unwrapped,
)
from neuroexapt.surgery.checking.budget import Budget
from neuroexapt.surgery.checking.forecast import Forecast, Prospect
from neuroexapt.surgery.checking.verify import TOLERANCE
from neuroexapt.surgery.checking.witness import FunctionChanged, Witness
from neuroexapt.surgery.lineage import Lineage
from neuroexapt.surgery.mutation import MAX_SEED, Mutation, checked
from neuroexapt.surgery.mutations import MUTATIONS
from neuroexapt.surgery.patch import Patch
from neuroexapt.surgery.plan import DECLARED, Mode, Plan
from neuroexapt.surgery.writing.apply import write
from neuroexapt.surgery.writing.averages import averages_inside, check_same
from neuroexapt.surgery.writing.optimizer_state import check_holds
from neuroexapt.surgery.writing.settings import write_settings
from neuroexapt.surgery.writing.undo import UndoLog

logger = logging.getLogger(__name__)

SELF_TEST_TOLERANCE = 1e-3  # a wrong axis moves outputs by their own size; rounding of deep float32 nets reaches 3e-4
COARSE_SELF_TEST_TOLERANCE = 5e-2  # the same for bfloat16 and half, whose rounding reaches 1e-2


class Surgeon:
    """Edits one model, its optimizer and its averages in place.

    Every edit is all or nothing: planned on fake tensors, written with an undo log, verified by running the model on
    the example inputs before and after; on any failure everything is as it was, to the bit. Call it between
    ``optimizer.step()`` and the next forward. Gradients in flight are kept where their entries are; new ones have none.

    A model under ``torch.compile`` is edited inside its shell and compiled again on its next call. A model on the meta
    device has no numbers: its structure is edited, nothing is verified, and ``Patch.output_change`` is NaN.

    Args:
        model: Any module.
        example_inputs: A tensor, tuple or dictionary of inputs; also the probe that edits are verified on.
        optimizer: Whose state moves along; one, or a sequence of all that hold the model's parameters.
        seed: Of all random entries, together with the number of edits before.
        averages: Averages of the model (``AveragedModel``, an EMA that is a copy of the model), one or a sequence. Each
            follows every edit with its own weights, is verified against itself, and is reverted with the model.
        objective: Mean loss of the model that it is given on calibration data, for plans that measure activations or
            gradients (pruning by importance, informed new units); without it activations come from the example inputs.
        loss: The loss module of the training loop, for edits that change a setting of it (label smoothing).
        budget: What the model may cost; an edit beyond it is refused on fake tensors, before anything is allocated.

    Raises:
        InputError: The model is wrapped, sharded, scripted or quantized, an average is not a copy of it, or an
            optimizer holds none of its parameters.
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any,
        optimizer: Optimizer | Sequence[Optimizer] | None = None,
        seed: int = 0,
        averages: nn.Module | Sequence[nn.Module] = (),
        objective: Callable[[nn.Module], Tensor] | None = None,
        loss: nn.Module | None = None,
        budget: Budget | None = None,
    ) -> None:
        self.objective = objective
        self.loss = loss
        self.budget = budget
        self.model = unwrapped(model)
        self.averages = averages_inside(self.model, averages)
        self._is_meta = is_meta(self.model)
        inputs = ExampleInputs.of(example_inputs)
        self.inputs = inputs.to(torch.device("meta")) if self._is_meta else inputs
        self.optimizers = (
            () if optimizer is None else (optimizer,) if isinstance(optimizer, Optimizer) else (*optimizer,)
        )
        check_holds(self.optimizers, self.model)
        self.lineage = Lineage()
        self._seed = seed
        self._witness = Witness(self.model, self.averages, self.inputs)
        self._graph: ModelGraph | None = None
        self._is_tested = False  # the graph, by permutation
        self._applied: list[tuple[Patch, ModelGraph]] = []  # with the graph before

    @property
    def graph(self) -> ModelGraph:
        """The graph of the model as it is now, self-tested by permuting every free axis."""
        graph = self._traced()
        if not self._is_tested and not self._is_meta:
            _freeze_distrusted(graph)
            self._is_tested = True
        return graph

    def candidates(self, kinds: Sequence[str] | None = None, *, growth: float = 1.5) -> list[Mutation]:
        """Returns every mutation that the model admits now."""
        return candidates(self.graph, kinds, growth=growth)

    def plan(self, mutation: Mutation) -> Plan:
        """Returns what ``apply`` would change; changes nothing."""
        return checked(mutation).plan(self.graph, torch.Generator().manual_seed(self._next_seed()))

    def forecast(self, mutation: Mutation | None = None, *, batch_size: int | None = None) -> Forecast:
        """Predicts what the model costs in training after an edit, on fake tensors; without one, as it is now.

        Args:
            mutation: The edit.
            batch_size: Samples in one training step; those of the example inputs by default.

        Raises:
            SurgeryError: The edit cannot be done.
            TraceError: The model's forward fails on fake tensors.
        """
        return self.prospect(self.plan(mutation) if mutation else Plan(), batch_size).forecast

    def prospect(self, plan: Plan, batch_size: int | None = None) -> Prospect:
        """Returns the model as it would be after a plan, with the optimizers and averages, on fake tensors."""
        return Prospect(self.model, self.inputs, self.optimizers, len(self.averages), plan, batch_size)

    def measure_change(self, mutation: Mutation) -> dict[Mode, float]:
        """Returns how much a mutation would change the outputs: made, measured and taken back to the bit.

        Returns:
            The largest relative change of any output on the example inputs, for each mode that was run; nothing on the
            meta device, where there are no numbers.

        Raises:
            SurgeryError: It cannot be done, does not run, or gives other shapes, NaN or infinity.
        """
        description, plan, log = checked(mutation).describe(self.graph), self.plan(mutation), UndoLog()
        if self._is_meta:
            return {}
        seen = self._witness.look()
        try:
            self._write(plan, log, is_replay=False)
            return self._witness.compare(seen, description, DECLARED)
        finally:
            log.roll_back()
            forget_compiled_code()

    def apply(self, mutation: Mutation) -> Patch:
        """Plans, applies and verifies one mutation.

        Raises:
            BudgetError: It would cost more than the budget admits; nothing has been allocated.
            SurgeryError: It was refused or failed; everything is as it was.
        """
        checked(mutation)
        is_fresh = self._graph is None
        try:
            return self._apply(mutation, self._next_seed(), verify=not self._is_meta)
        except FunctionChanged:
            if is_fresh:
                raise
        # The user may have changed an attribute since the trace, so what is known of the model is found out anew.
        self._graph, self._is_tested = None, False
        self._witness.forget()
        return self._apply(mutation, self._next_seed(), verify=not self._is_meta)

    def revert(self, patch: Patch) -> None:
        """Takes an applied patch back: the tensors that it replaced return with their bytes of that moment.

        Raises:
            SurgeryError: It is not the latest patch that is still applied.
        """
        if not self._applied or self._applied[-1][0] is not patch:
            raise SurgeryError(
                f"{patch.description}: not the latest edit of this surgeon. Revert later edits first, in reverse order."
            )
        patch._undo.roll_back()
        forget_compiled_code()
        _, self._graph = self._applied.pop()
        self._is_tested = True
        self.lineage = Lineage(self.lineage.steps[:-1])

    def forget_patches(self) -> None:
        """Gives up the possibility to revert, and with it the memory of the replaced tensors."""
        self._applied.clear()

    def _traced(self) -> ModelGraph:
        if self._graph is None or not self._graph.is_current():
            self._graph, self._is_tested = trace(self.model, self.inputs, self.objective), False
        return self._graph

    def _next_seed(self) -> int:
        return (self._seed * 1_000_003 + len(self.lineage)) % MAX_SEED

    def _apply(self, mutation: Mutation, seed: int, verify: bool, is_replay: bool = False) -> Patch:
        before = self.graph if verify else self._traced()
        description = mutation.describe(before)
        plan = mutation.plan(before, torch.Generator().manual_seed(seed))
        if self.budget is not None:
            size = self.budget.batch_size
            self.budget.check(partial(self.prospect, Plan(), size), self.prospect(plan, size), description)
        known = {id(p) for p in self.model.parameters()}
        seen = self._witness.look() if verify else None
        log = UndoLog()
        try:
            self._write(plan, log, is_replay)
            changes = self._witness.compare(seen, description, plan.declared) if seen is not None else {}
            after = trace(self.model, self.inputs, self.objective)
        except BaseException:  # also an interrupt: the edit is made as a whole or not at all
            log.roll_back()
            raise
        forget_compiled_code()
        patch = Patch(
            mutation=mutation,
            description=description,
            seed=seed,
            changes=changes,
            declared=plan.declared,
            verified_in_train_mode=seen is not None and seen[0].train is not None,
            parameter_delta=after.cost.num_parameters - before.cost.num_parameters,
            flop_delta=after.cost.flops_per_sample - before.cost.flops_per_sample,
            sources=plan.sources(),
            added=tuple(name for name, p in self.model.named_parameters() if id(p) not in known),
            _undo=log,
        )
        self._applied.append((patch, before))
        self._graph, self._is_tested = after, False
        self.lineage = self.lineage.then(mutation, seed)
        return patch

    def _write(self, plan: Plan, log: UndoLog, is_replay: bool) -> None:
        for index, average in enumerate(self.averages):
            check_same(self.model, average, f"averages[{index}]")
        write(self.model, self.optimizers, plan, log)
        for average in self.averages:
            write(average, (), plan, log, leader=self.model)
        write_settings(self.model, self.optimizers, self.loss, plan, log, is_replay)


def candidates(graph: ModelGraph, kinds: Sequence[str] | None = None, *, growth: float = 1.5) -> list[Mutation]:
    """Returns every mutation that a model admits, as values.

    Args:
        graph: From ``trace``.
        kinds: Names of kinds, all by default.
        growth: New size over old size, > 1, for kinds that have a size.

    Raises:
        SurgeryError: A kind is unknown, or ``growth`` is none.
    """
    if isinstance(kinds, str):
        raise SurgeryError(f"kinds: found {kinds!r}, needed a sequence of names. Give [{kinds!r}].")
    if not growth > 1:
        raise SurgeryError(
            f"growth: found {growth}, needed new size over old size, more than 1. Give 1.5, for example."
        )
    unknown = [str(kind) for kind in kinds or () if kind not in MUTATIONS]
    if unknown:
        raise SurgeryError(f"kinds: unknown {', '.join(unknown)}; known are {', '.join(MUTATIONS)}.")
    return [m for kind in kinds or MUTATIONS for m in MUTATIONS[kind].candidates(graph, growth=growth)]


def replay(
    seed_model: nn.Module,
    lineage: Lineage,
    example_inputs: Any,
    optimizer: Optimizer | Sequence[Optimizer] | None = None,
    seed: int = 0,
    averages: nn.Module | Sequence[nn.Module] = (),
    objective: Callable[[nn.Module], Tensor] | None = None,
    loss: nn.Module | None = None,
) -> Surgeon:
    """Applies a lineage to the seed model, in place: same keys, shapes and, on the same weights, outputs.

    Structure only: nothing is verified numerically, because each step was when it was first made. A seed model on the
    meta device becomes the grown model there, ready for ``load_state_dict(..., assign=True)``. Where no optimizer or no
    loss is given, their settings are skipped with a warning in the log.

    Returns:
        A surgeon that goes on from there.

    Raises:
        SurgeryError: A step does not fit; the model is then grown up to that step, so build a fresh one.
    """
    surgeon = Surgeon(seed_model, example_inputs, optimizer, seed, averages, objective, loss)
    for index, step in enumerate(lineage.steps):
        try:
            surgeon._apply(step.mutation, step.seed, verify=False, is_replay=True)
        except SurgeryError as error:
            raise SurgeryError(f"lineage step {index}: {error} Was it made from another seed model?") from error
    surgeon.forget_patches()
    return surgeon


def _freeze_distrusted(graph: ModelGraph) -> None:
    is_fine = all(p.dtype in TOLERANCE for p in graph.model.parameters() if is_inexact(p))
    tolerance = SELF_TEST_TOLERANCE if is_fine else COARSE_SELF_TEST_TOLERANCE
    for group, error in distrusted_groups(graph, torch.Generator().manual_seed(0), tolerance):
        logger.warning("%s: permuting this axis changed the outputs by %.1e; it is frozen", group.name, error)
        graph.freeze(group, f"the self-test failed: permuting it changed the outputs by {error:.1e}")
