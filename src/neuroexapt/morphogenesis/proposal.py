"""A proposal: which edits are tried together, what they should bring, and what their outcome teaches."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from typing import Any

from neuroexapt.config import MorphogenesisConfig
from neuroexapt.errors import BudgetError, SurgeryError
from neuroexapt.events import ProposalMade
from neuroexapt.morphogenesis.assay import Assay
from neuroexapt.morphogenesis.experience import Experience
from neuroexapt.morphogenesis.history import History
from neuroexapt.morphogenesis.policies import Context, greedy, predicted, score, uniform
from neuroexapt.morphogenesis.thresholds import adapted
from neuroexapt.morphogenesis.triggers import Firing
from neuroexapt.morphogenesis.verdict import Verdict
from neuroexapt.surgery import Patch, Surgeon

logger = logging.getLogger(__name__)

NUM_RUNNERS_UP = 5


@dataclass(frozen=True, slots=True)
class Scoring:
    """How candidates were scored; its fields go into ``ProposalMade``.

    Attributes:
        name: Of the score, ``""`` where there were no data.
        flops: What it took, counted.
        max_flops: What it was allowed.
        remark: Why nothing was scored, or ``""``.
    """

    name: str = ""
    flops: int = 0
    max_flops: int = 0
    remark: str = ""


@dataclass(slots=True)
class Proposal:
    """What the policy wants tried.

    Attributes:
        firing: The trigger, and why.
        ranked: All admissible candidates, best first.
        num_edits: At most so many of them at once.
        step_length: Learning rate times the steps of the trial: what a first-order score is multiplied with.
        scoring: How the candidates were scored.
        applied: Those that were made, with their patches, in order.
    """

    firing: Firing
    ranked: tuple[Assay, ...]
    num_edits: int
    step_length: float = 0.0
    scoring: Scoring = Scoring()
    applied: list[tuple[Assay, Patch]] = field(default_factory=list)

    @property
    def chosen(self) -> list[Assay]:
        """The edits: those that were made, before that the best ones, one a place."""
        if self.applied:
            return [assay for assay, _ in self.applied]
        first_at: dict[str, Assay] = {}
        for assay in self.ranked:
            first_at.setdefault(assay.mutation.place, assay)
        return list(first_at.values())[: self.num_edits]

    @property
    def is_exact(self) -> bool:
        """Whether no edit that was made declares a change of the function."""
        return not any(patch.declared for _, patch in self.applied)

    @property
    def description(self) -> str:
        """The edits in words."""
        return "; ".join(assay.description for assay in self.chosen)

    @property
    def flop_delta(self) -> int:
        """Forward FLOPs per sample that the edits add together, as far as they do not touch each other."""
        return sum(assay.flop_delta for assay in self.chosen)

    def prediction(self, history: History) -> float:
        """Fall of the loss, in nats, that the scores predict, times what such predictions have been worth so far."""
        return sum(self._first_order(a) * history.factor(type(a.mutation).__name__) for a in self.chosen)

    def apply(self, surgeon: Surgeon, history: History, config: MorphogenesisConfig) -> None:
        """Makes the edits, best first; one that is refused is banned, and the next in rank takes its place.

        Raises:
            SurgeryError: All were refused; the model is as it was.
        """
        taken: set[str] = set()
        failure: SurgeryError | None = None
        for assay in self.ranked:
            if len(self.applied) == self.num_edits:
                break
            if assay.mutation.place in taken:
                continue
            try:
                patch = surgeon.apply(assay.mutation)
            except SurgeryError as error:
                failure = error
                is_dear = isinstance(error, BudgetError)  # beside the edits before it, which is no fault of its own
                logger.log(logging.INFO if is_dear else logging.WARNING, "the proposed edit was refused: %s", error)
                if not self.applied:  # otherwise an edit beside it may be the reason
                    history.bans.fail(assay.place, history.position, config.ban_epochs)
                continue
            taken.add(assay.mutation.place)
            self.applied.append((assay, patch))
        if failure is not None and not self.applied:
            raise failure

    def take_back(self, surgeon: Surgeon) -> None:
        """Reverts the edits, last first."""
        for _, patch in reversed(self.applied):
            surgeon.revert(patch)

    def learn(self, verdict: Verdict, history: History, experience: Experience, config: MorphogenesisConfig) -> None:
        """Writes the outcome down: counts, bans, strictness, what kinds of edits gain and predictions are worth."""
        history.last_event = history.position
        history.num_accepted += verdict.accepted
        history.num_rolled_back += not verdict.accepted
        for assay in self.chosen:
            kind = type(assay.mutation).__name__
            share = 1 / len(self.chosen)
            if math.isfinite(verdict.gain):
                history.learn(kind, self._first_order(assay), verdict.gain * share)
            if not math.isnan(verdict.net_gain):
                experience.learn(kind, verdict.net_gain * share, share)
            if verdict.accepted:
                history.edits_at[assay.place] = history.edits_at.get(assay.place, 0) + 1
                history.bans.succeed(assay.place)
            else:
                history.bans.fail(assay.place, history.position, config.ban_epochs)
        if self.firing.trigger and not math.isnan(verdict.gain):
            before = history.strictness.get(self.firing.trigger, 1.0)
            after = adapted(before, verdict.accepted, config.adapt_rate, config.target_success)
            history.strictness[self.firing.trigger] = after

    def event(self, context: Context, num_steps: int) -> ProposalMade:
        """Returns the fact to tell, with the choices of the baselines beside it."""
        history = context.history
        scored = [assay for assay in self.ranked if assay.evidence is not None]
        evidence = [assay.evidence for assay in self.chosen if assay.evidence is not None]
        rest = [assay for assay in self.ranked if assay not in self.chosen]
        return ProposalMade(
            epoch=history.epoch,
            position=history.position,
            trigger=self.firing.reason,
            policy=context.config.policy,
            mutations=[assay.mutation.to_json() for assay in self.chosen],
            description=self.description,
            predicted_gain=self.prediction(history),
            evidence=sum(e.value for e in evidence),
            evidence_spread=math.sqrt(sum(e.spread**2 for e in evidence)),
            num_samples=min((e.num_samples for e in evidence), default=0),
            score=self.scoring.name,
            score_flops=self.scoring.flops,
            score_flops_allowed=self.scoring.max_flops,
            score_remark=self.scoring.remark,
            added_flops=self.flop_delta,
            trial_steps=num_steps,
            strictness=dict(history.strictness),
            uniform_choice=uniform(self.ranked, context)[0].description,
            evidence_choice=greedy(scored, context)[0].description if scored else "",
            num_candidates=len(self.ranked),
            num_scored=len(scored),
            runners_up=[_runner_up(assay, history) for assay in rest[:NUM_RUNNERS_UP]],
        )

    def _first_order(self, assay: Assay) -> float:
        return self.step_length * max(assay.evidence.value, 0.0) if assay.evidence is not None else 0.0


def _runner_up(found: Assay, history: History) -> dict[str, Any]:
    is_scored = found.evidence is not None
    return {
        "description": found.description,
        "evidence": predicted(found, history) if is_scored else None,
        "added_flops": found.flop_delta,
        "score": score(found, history) if is_scored else None,
    }
