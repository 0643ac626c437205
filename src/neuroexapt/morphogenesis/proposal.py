"""From candidates to a proposal: what is worth trying, at which cost, with which expected gain."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from neuroexapt.config import MorphogenesisConfig
from neuroexapt.errors import BudgetError, SurgeryError
from neuroexapt.events import ProposalMade
from neuroexapt.morphogenesis.assay import Assay, Batches, LossFunction, assay
from neuroexapt.morphogenesis.history import History
from neuroexapt.morphogenesis.policies import POLICIES, by_evidence, predicted, score, uniform
from neuroexapt.morphogenesis.verdict import Verdict
from neuroexapt.surgery import Mutation, Surgeon

logger = logging.getLogger(__name__)

NUM_RUNNERS_UP = 5
OBSERVATIONS = 4  # forward passes on the probe batch per edit: eval and train mode, before and after


@dataclass(frozen=True, slots=True)
class Proposal:
    """What the policy wants tried.

    Attributes:
        ranked: All admissible candidates, best first.
        first_order_gain: Fall of the loss that the evidence alone predicts, in nats.
        prediction: The same times what such predictions have been worth so far.
    """

    ranked: tuple[Assay, ...]
    first_order_gain: float
    prediction: float

    @staticmethod
    def of(ranked: Sequence[Assay], step_length: float, history: History) -> Proposal:
        """Predicts the gain of the best candidate: learning rate x steps of the trial x squared gradient norm."""
        evidence = ranked[0].evidence
        gain = step_length * max(evidence.value, 0.0) if evidence is not None else 0.0
        return Proposal(tuple(ranked), gain, gain * history.factor(type(ranked[0].mutation).__name__))

    @property
    def choice(self) -> Assay:
        """The best candidate."""
        return self.ranked[0]

    def event(self, trigger: str, policy: str, history: History) -> ProposalMade:
        """Returns the fact to tell."""
        evidence = self.choice.evidence
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
            added_flops=self.choice.flop_delta,
            uniform_choice=uniform(self.ranked, history)[0].description,
            evidence_choice=by_evidence(self.ranked, history)[0].description if evidence else "",
            num_candidates=len(self.ranked),
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
    """Measures candidates and lets the policy order them.

    Memory: one assay, two numbers and two strings, for each place that the model admits an edit at.
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

    def rank(self, surgeon: Surgeon, history: History) -> list[Assay]:
        """Returns every candidate that is neither banned nor too dear, in the policy's order."""
        admitted = []
        candidates = surgeon.candidates(self._config.kinds, growth=self._config.widen_ratio)
        for order, mutation in enumerate(candidates):
            if history.is_banned(f"{type(mutation).__name__}@{mutation.place}"):
                continue
            try:
                found = self.weigh(surgeon, mutation, history)
            except BudgetError as error:
                logger.info("%s", error)
                continue
            except SurgeryError as error:
                logger.warning("candidate refused: %s", error)
                continue
            admitted.append(replace(found, order=order))
        return POLICIES[self._config.policy](admitted, history)

    def weigh(self, surgeon: Surgeon, mutation: Mutation, history: History) -> Assay:
        """Measures one mutation and counts what that took.

        Raises:
            SurgeryError: It was refused.
        """
        batches = self._evidence_batches(history.epoch) if self._evidence_batches is not None else None
        found = assay(surgeon, mutation, batches, self._loss_function)
        cost = surgeon.graph.cost
        samples = 3 * (found.evidence.num_samples if found.evidence else 0) + OBSERVATIONS * cost.batch_size
        self.flops_spent += samples * (cost.flops_per_sample + found.flop_delta)
        return found

    def state_dict(self) -> dict[str, Any]:
        """Returns what has been spent, as JSON."""
        return {"flops_spent": self.flops_spent}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes a saved state over."""
        self.flops_spent = state["flops_spent"]


def _runner_up(found: Assay, history: History) -> dict[str, Any]:
    return {
        "description": found.description,
        "evidence": predicted(found, history),
        "added_flops": found.flop_delta,
        "score": score(found, history),
    }
