"""What the engine tells of a trial, as facts."""

from __future__ import annotations

import math
from collections.abc import Iterator

from neuroexapt.events import MutationApplied, VerdictReached
from neuroexapt.morphogenesis.history import History
from neuroexapt.morphogenesis.proposal import Proposal
from neuroexapt.morphogenesis.trial import Trial
from neuroexapt.morphogenesis.verdict import Verdict


def applied_facts(proposal: Proposal, history: History, seconds: float) -> Iterator[MutationApplied]:
    """Yields a fact for each edit that was made; ``seconds`` are of all of them."""
    for _, patch in proposal.applied:
        yield MutationApplied(
            epoch=history.epoch,
            mutation=patch.mutation.to_json(),
            description=patch.description,
            output_change=patch.output_change,
            parameter_delta=patch.parameter_delta,
            flop_delta=patch.flop_delta,
            seconds=seconds / len(proposal.applied),
        )


def verdict_fact(trial: Trial, verdict: Verdict, history: History, discarded_flops: int) -> VerdictReached:
    """Returns the fact that ends an event; ``discarded_flops`` are of the arm that was given up."""
    return VerdictReached(
        epoch=history.epoch,
        position=history.position,
        accepted=verdict.accepted,
        mutations=[assay.mutation.to_json() for assay in trial.proposal.chosen],
        description=trial.proposal.description,
        predicted_gain=trial.proposal.prediction(history),
        measured_gain=verdict.gain,
        relative_gain=verdict.relative_gain,
        low=verdict.low,
        high=verdict.high,
        needed=verdict.needed,
        cost=verdict.cost,
        control_loss=trial.control.mean_loss,
        trial_loss=trial.trial.mean_loss if trial.trial is not None else math.nan,
        trial_steps=trial.num_steps,
        discarded_flops=discarded_flops,
        reason=verdict.reason,
    )
