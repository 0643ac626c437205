"""``Proposer``: counts what candidates cost, scores them, and lets the policy order them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from neuroexapt.analysis.scores import SCORES
from neuroexapt.config import MorphogenesisConfig
from neuroexapt.errors import BudgetError, SurgeryError
from neuroexapt.graph import FlopCount
from neuroexapt.morphogenesis.assay import Assay, Batches, LossFunction, assay
from neuroexapt.morphogenesis.experience import Experience
from neuroexapt.morphogenesis.history import History
from neuroexapt.morphogenesis.ledger import Ledger
from neuroexapt.morphogenesis.needs import Needs
from neuroexapt.morphogenesis.policies import POLICIES, Context
from neuroexapt.morphogenesis.proposal import Proposal, Scoring
from neuroexapt.morphogenesis.scoring import Effort, score_all
from neuroexapt.morphogenesis.triggers import Firing
from neuroexapt.resources import stream
from neuroexapt.surgery import Mutation, Plan, Surgeon

logger = logging.getLogger(__name__)


class Proposer:
    """From what the model admits to an order of what is worth trying.

    Memory: one plan, a few numbers and two strings, for each place that the model admits an edit at; see ``score_all``
    for what scoring takes.
    """

    def __init__(
        self,
        config: MorphogenesisConfig,
        seed: int,
        evidence_batches: Batches | None,
        loss_function: LossFunction,
        needs: Needs,
        ledger: Ledger,
    ) -> None:
        self._config, self._seed, self._needs, self._ledger = config, seed, needs, ledger
        self._evidence_batches, self._loss_function = evidence_batches, loss_function
        self.scoring = Scoring()

    def rank(self, surgeon: Surgeon, history: History, experience: Experience, max_flops: float) -> list[Assay]:
        """Returns every candidate that is admissible, in the policy's order.

        Admissible is what is not banned, lies within the budget and answers a need where one is asked for.

        Args:
            surgeon: Of the model.
            history: Of the run.
            experience: What edits have gained.
            max_flops: What scoring may take at most, besides its own share.
        """
        open_ones = [
            (order, mutation)
            for order, mutation in enumerate(surgeon.candidates(self._config.kinds, growth=self._config.widen_ratio))
            if self._is_open(surgeon, mutation, history)
        ]
        with FlopCount(fakes=False) as count:  # of plans that measure
            admitted = [found for order, mutation in open_ones if (found := _admitted(surgeon, mutation, order))]
        self._ledger.spend("proposing", count.flops)
        scored = self._scored(surgeon, admitted, history, max_flops)
        return POLICIES[self._config.policy](scored, self.context(history, experience))

    def context(self, history: History, experience: Experience) -> Context:
        """Returns what a policy may know now; its generator depends on the seed and the number of events only."""
        return Context(
            config=self._config,
            history=history,
            experience=experience,
            generator=stream(self._seed, "policy", history.num_events),
            num_events=history.num_events,
        )

    def proposal(self, firing: Firing, ranked: Sequence[Assay]) -> Proposal:
        """Returns what to try of the candidates that were ranked last."""
        return Proposal(firing, tuple(ranked), self._config.edits_per_event, scoring=self.scoring)

    def weigh(self, surgeon: Surgeon, mutation: Mutation, history: History) -> Assay:
        """Counts what one mutation would cost and scores it.

        Raises:
            SurgeryError: It was refused.
        """
        return self._scored(surgeon, [assay(surgeon, mutation)], history, float("inf"))[0]

    def _is_open(self, surgeon: Surgeon, mutation: Mutation, history: History) -> bool:
        """Whether an edit is not banned, and answers a need where one is asked for."""
        if history.bans.is_banned(f"{type(mutation).__name__}@{mutation.place}", history.position):
            return False
        threshold = self._config.need_threshold
        return not threshold or self._needs.of(surgeon, mutation, history) >= threshold

    def _scored(self, surgeon: Surgeon, found: list[Assay], history: History, max_flops: float) -> list[Assay]:
        """Scores candidates within their share of what was trained since the last time; their plans are given up."""
        self.scoring = Scoring()
        plain = [replace(candidate, plan=Plan()) for candidate in found]
        if self._evidence_batches is None or not found:
            return plain
        config = self._config
        effort = Effort(
            max_flops=int(min(config.score_fraction * history.unscored_flops, max_flops)),
            max_samples=config.evidence_samples,
            max_bytes=config.score_bytes,
        )
        score, batches = SCORES[config.score], self._evidence_batches(history.epoch)
        scores = score_all(surgeon.graph, found, batches, self._loss_function, score, effort)
        if scores.remark:
            is_asked_for = config.policy == "greedy"
            logger.log(logging.WARNING if is_asked_for else logging.INFO, "no candidate was scored: %s", scores.remark)
        else:
            history.unscored_flops = 0
        self._ledger.spend("proposing", scores.flops)
        self.scoring = Scoring(config.score, scores.flops, effort.max_flops, scores.remark)
        return [replace(plain[i], evidence=scores.evidence.get(i)) for i in range(len(plain))]


def _admitted(surgeon: Surgeon, mutation: Mutation, order: int) -> Assay | None:
    """Counts what an edit would cost; ``None`` where it is refused, which the log tells."""
    try:
        return replace(assay(surgeon, mutation), order=order)
    except BudgetError as error:
        logger.info("%s", error)
    except SurgeryError as error:
        logger.warning("candidate refused: %s", error)
    return None
