"""InfoNCE: how well one can tell which of some rows has a label."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from neuroexapt.analysis.estimators.base import Estimator, Value
from neuroexapt.analysis.estimators.intervals import standard_error, t_quantile
from neuroexapt.analysis.estimators.probing import ROWS_PER_CLASS, log_ratios, numbered, probe_bytes, probe_of
from neuroexapt.analysis.watching import LayerSample

CANDIDATES = 16
MIN_SETS = 4  # of candidates, which are independent of each other; with fewer rows the sets are smaller
FOLDS = 5
MIN_ROWS = 16


class InfoNCE(Estimator):
    """The bound of van den Oord et al. 2018 (equations 4 and 5; Poole et al. 2019, equation 10) on I(Y; H).

    Given the label of one of N rows, a critic says which row it is. The critic is the log-ratio p(y | h) / p(y) of the
    linear probe (``probing.py``), fitted without the candidates; only its ridge and scale, two numbers, are those that
    are best on held-out rows among all. Unlike ``label_probe`` it needs no entropy of the label, and it cannot be over
    log N. The true value is that of a critic fitted to unlimited rows. The value is a lower bound of it; the interval
    ends at what a critic reaches that has seen the candidates, and chance added.
    """

    name = "info_nce"
    views = frozenset({"pooled", "targets"})
    values = MappingProxyType(
        {
            "label_information_nce": f"what tells apart {CANDIDATES} rows given a label, in nats, in [0, log "
            f"{CANDIDATES}]; a lower bound of the information about the label, 0 where there is none"
        }
    )

    def workspace_bytes(self, sample: LayerSample) -> int:
        """The probe of all rows, or one without a fold, and the ratios of all pairs in a set."""
        assert sample.pooled is not None
        assert sample.targets is not None
        count, columns = sample.pooled.shape
        classes = len(set(sample.targets.tolist()))
        return probe_bytes(count, columns, classes) + 8 * count * CANDIDATES

    def estimate(self, sample: LayerSample) -> Mapping[str, Value]:
        """See ``values``."""
        assert sample.pooled is not None
        assert sample.targets is not None
        classes, num_classes = numbered(sample.targets)
        count = len(classes)
        if count < MIN_ROWS or num_classes < 2:
            return {}
        probe = probe_of(sample)
        assert probe is not None
        rows = sample.pooled.double()
        candidates = min(CANDIDATES, count // MIN_SETS)
        sets = count // candidates
        held = torch.empty(sets, dtype=torch.float64)
        member = torch.arange(count) % sets
        member[candidates * sets :] = -1  # these are only fitted to
        for fold in range(min(FOLDS, sets)):
            is_out = (member >= 0) & (member % FOLDS == fold)
            chosen = torch.arange(fold, sets, FOLDS)[:, None] + sets * torch.arange(candidates)
            asked = rows[chosen.flatten()]
            ratios = log_ratios(rows[~is_out], classes[~is_out], num_classes, probe.held_out_choice, asked)
            held[fold::FOLDS] = _told_apart(ratios, classes[chosen])
        chosen = torch.arange(sets)[:, None] + sets * torch.arange(candidates)
        asked = rows[chosen.flatten()]
        ratios = log_ratios(rows, classes, num_classes, probe.halfway_choice, asked)
        seen = _told_apart(ratios, classes[chosen])
        is_blind = count < ROWS_PER_CLASS * num_classes
        return {"label_information_nce": _with_interval(held, seen, math.log(candidates), is_blind)}


def _told_apart(ratios: Tensor, labels: Tensor) -> Tensor:
    """The bound by each set of rows: float64 ``[sets]``.

    Args:
        ratios: Of all rows of all sets, by the critic: ``[sets * candidates, K]``.
        labels: Of the rows of each set, int64 ``[sets, candidates]``.
    """
    count, candidates = labels.shape
    pairs = ratios.view(count, candidates, -1).gather(2, labels[:, None, :].expand(-1, candidates, -1))
    own = pairs.diagonal(dim1=1, dim2=2)
    return (own - pairs.logsumexp(1) + math.log(candidates)).mean(1)


def _with_interval(held: Tensor, seen: Tensor, most: float, is_blind: bool) -> Value:
    """The mean of the sets with what unlimited rows may give, within [0, most]; up to there where that is not known."""
    found, spread, reach = float(held.mean()), standard_error(held), t_quantile(len(held) - 1)
    value = min(max(found, 0.0), most)
    above = max(float(seen.mean()), found) + reach * max(spread, standard_error(seen))
    high = most if is_blind else max(min(above, most), value)
    return Value(value, spread, min(max(found - reach * spread, 0.0), value), high)
