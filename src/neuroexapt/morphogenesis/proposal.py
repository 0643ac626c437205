"""From candidates to a proposal: what is worth trying, at which cost, with which expected gain."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from neuroexapt.analysis.scores import SCORES
from neuroexapt.config import MorphogenesisConfig
from neuroexapt.errors import BudgetError, SurgeryError
from neuroexapt.events import ProposalMade
from neuroexapt.morphogenesis.assay import Assay, Batches, LossFunction, assay
from neuroexapt.morphogenesis.history import History
from neuroexapt.morphogenesis.policies import POLICIES, by_evidence, predicted, score, uniform
from neuroexapt.morphogenesis.scoring import Effort, score_all
from neuroexapt.morphogenesis.verdict import Verdict
from neuroexapt.surgery import Mutation, Plan, Surgeon

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


@dataclass(frozen=True, slots=True)
class Proposal:
    """What the policy wants tried.

    Attributes:
        ranked: All admissible candidates, best first.
        first_order_gain: Fall of the loss that the evidence alone predicts, in nats.
        prediction: The same times what such predictions have been worth so far.
        scoring: How the candidates were scored.
    """

    ranked: tuple[Assay, ...]
    first_order_gain: float
    prediction: float
    scoring: Scoring = Scoring()

    @staticmethod
    def of(ranked: Sequence[Assay], step_length: float, history: History, scoring: Scoring = Scoring()) -> Proposal:
        """Predicts the gain of the best candidate: learning rate x steps of the trial x its score."""
        evidence = ranked[0].evidence
        gain = step_length * max(evidence.value, 0.0) if evidence is not None else 0.0
        return Proposal(tuple(ranked), gain, gain * history.factor(type(ranked[0].mutation).__name__), scoring)

    def next_best(self, step_length: float, history: History) -> Proposal | None:
        """Returns the proposal without its choice, or ``None`` where that was the last candidate."""
        return Proposal.of(self.ranked[1:], step_length, history, self.scoring) if len(self.ranked) > 1 else None

    @property
    def choice(self) -> Assay:
        """The best candidate."""
        return self.ranked[0]

    def event(self, trigger: str, policy: str, history: History) -> ProposalMade:
        """Returns the fact to tell."""
        evidence = self.choice.evidence
        scored = [candidate for candidate in self.ranked if candidate.evidence is not None]
        return ProposalMade(
            epoch=history.epoch,
            trigger=trigger,
            policy=policy,
            mutation=self.choice.mutation.to_json(),
            description=self.choice.description,
            predicted_gain=self.prediction,
            evidence=evidence.value if evidence else 0.0,
            evidence_spread=evidence.spread if evidence else 0.0,
            num_samples=evidence.num_samples if evidence else 0,
            score=self.scoring.name,
            score_flops=self.scoring.flops,
            score_flops_allowed=self.scoring.max_flops,
            score_remark=self.scoring.remark,
            added_flops=self.choice.flop_delta,
            uniform_choice=uniform(self.ranked, history)[0].description,
            evidence_choice=by_evidence(scored, history)[0].description if scored else "",
            num_candidates=len(self.ranked),
            num_scored=len(scored),
            runners_up=[_runner_up(a, history) for a in self.ranked[1 : NUM_RUNNERS_UP + 1]],
        )

    def learn(self, verdict: Verdict, history: History, ban_epochs: int) -> None:
        """Writes the outcome into the history: counts, bans, and what predictions are worth."""
        kind, place = type(self.choice.mutation).__name__, self.choice.place
        history.last_event = history.epoch
        if math.isfinite(verdict.gain):
            history.learn(kind, self.first_order_gain, verdict.gain)
        if verdict.accepted:
            history.num_accepted += 1
            history.edits_at[place] = history.edits_at.get(place, 0) + 1
        else:
            history.num_rolled_back += 1
            history.banned_until[place] = history.epoch + ban_epochs


class Proposer:
    """Counts what candidates cost, scores them, and lets the policy order them.

    Memory: one plan, a few numbers and two strings, for each place that the model admits an edit at; see ``score_all``
    for what scoring takes.
    """

    def __init__(
        self,
        config: MorphogenesisConfig,
        evidence_batches: Batches | None,
        loss_function: LossFunction,
    ) -> None:
        self._config = config
        self._evidence_batches = evidence_batches
        self._loss_function = loss_function
        self.flops_spent = 0
        self.scoring = Scoring()

    def rank(self, surgeon: Surgeon, history: History) -> list[Assay]:
        """Returns every candidate that is neither banned nor too dear, in the policy's order."""
        admitted = []
        candidates = surgeon.candidates(self._config.kinds, growth=self._config.widen_ratio)
        for order, mutation in enumerate(candidates):
            if history.is_banned(f"{type(mutation).__name__}@{mutation.place}"):
                continue
            try:
                found = assay(surgeon, mutation)
            except BudgetError as error:
                logger.info("%s", error)
                continue
            except SurgeryError as error:
                logger.warning("candidate refused: %s", error)
                continue
            admitted.append(replace(found, order=order))
        return POLICIES[self._config.policy](self._scored(surgeon, admitted, history), history)

    def weigh(self, surgeon: Surgeon, mutation: Mutation, history: History) -> Assay:
        """Counts what one mutation would cost and scores it.

        Raises:
            SurgeryError: It was refused.
        """
        return self._scored(surgeon, [assay(surgeon, mutation)], history)[0]

    def _scored(self, surgeon: Surgeon, found: list[Assay], history: History) -> list[Assay]:
        """Scores candidates within their share of what was trained since the last time; their plans are given up."""
        self.scoring = Scoring()
        plain = [replace(candidate, plan=Plan()) for candidate in found]
        if self._evidence_batches is None or not found:
            return plain
        config = self._config
        effort = Effort(
            max_flops=int(config.score_fraction * history.training_flops),
            max_samples=config.evidence_samples,
            max_bytes=config.score_bytes,
        )
        score, batches = SCORES[config.score], self._evidence_batches(history.epoch)
        scores = score_all(surgeon.graph, found, batches, self._loss_function, score, effort)
        if scores.remark:
            is_asked_for = config.policy == "evidence"
            logger.log(logging.WARNING if is_asked_for else logging.INFO, "no candidate was scored: %s", scores.remark)
        self.flops_spent += scores.flops
        history.training_flops = 0
        self.scoring = Scoring(config.score, scores.flops, effort.max_flops, scores.remark)
        return [replace(plain[i], evidence=scores.evidence.get(i)) for i in range(len(plain))]

    def state_dict(self) -> dict[str, Any]:
        """Returns what has been spent, as JSON."""
        return {"flops_spent": self.flops_spent}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes a saved state over."""
        self.flops_spent = state["flops_spent"]


def _runner_up(found: Assay, history: History) -> dict[str, Any]:
    is_scored = found.evidence is not None
    return {
        "description": found.description,
        "evidence": predicted(found, history) if is_scored else None,
        "added_flops": found.flop_delta,
        "score": score(found, history) if is_scored else None,
    }
