"""What a linear probe tells about the label: the closed form, the interval, and what is not to be had."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from neuroexapt.analysis.estimators import Estimator
from neuroexapt.analysis.estimators.info_nce import CANDIDATES, InfoNCE
from neuroexapt.analysis.estimators.label_probe import LabelInformation
from neuroexapt.analysis.estimators.probing import Discriminant, fit_probe
from neuroexapt.analysis.watching import LayerSample

EXACT = 1e-9  # float64, another order of the same sums
ENOUGH = 1 << 30


def rows_of(num_rows: int, num_classes: int, distance: float, seed: int, width: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randint(num_classes, (num_rows,), generator=generator)
    centers = distance * torch.eye(num_classes, width, dtype=torch.float64)
    return centers[classes] + torch.randn(num_rows, width, generator=generator, dtype=torch.float64), classes


def sample_of(rows: Tensor, classes: Tensor) -> LayerSample:
    rows = rows.float()
    return LayerSample(features=rows, low=rows.amin(0), high=rows.amax(0), pooled=rows, targets=classes)


def refitted_log_ratios(rows: Tensor, classes: Tensor, left_out: int, ridge: float) -> Tensor:
    """Scores of one row by discriminants made from scratch of the standardised others."""
    kept = torch.arange(len(rows)) != left_out
    rest, labels, count = rows[kept], classes[kept], int(classes.max()) + 1
    sizes = torch.tensor([int((labels == k).sum()) for k in range(count)], dtype=torch.float64)
    sums = torch.stack([rest[labels == k].sum(0) for k in range(count)])
    within = rest - (sums / sizes.clamp(min=1)[:, None])[labels]
    added = ridge * rows.shape[1]
    strength = len(rest) - count + added
    inverse = torch.linalg.inv(within.T @ within + added * torch.eye(rows.shape[1], dtype=torch.float64))
    away = rows[left_out] - sums / (sizes + 1)[:, None]
    return -strength / 2 * ((away @ inverse) * away).sum(1)


@pytest.mark.parametrize("ridge", [0.1, 4.0])
def test_every_row_is_judged_as_by_a_probe_that_is_fitted_again_without_it(ridge: float) -> None:
    rows, classes = rows_of(24, 4, 1.0, 0)
    classes[torch.nonzero(classes == 3)[1:, 0]] = 0  # a class with a single row
    rows = (rows - rows.mean(0)) / rows.std(0)
    fit = Discriminant.fitted(rows, classes, 4)
    found = fit.left_out_scores(fit.turned(rows), classes, ridge)
    for row in range(len(rows)):
        expected = refitted_log_ratios(rows, classes, row, ridge)
        torch.testing.assert_close(
            found[row] - found[row, 0], expected - expected[0], rtol=EXACT, atol=EXACT, msg=f"row {row}"
        )


def test_labels_that_the_rows_determine_are_told_whole_and_those_that_they_do_not_are_not() -> None:
    told = LabelInformation().measure("layer", sample_of(*rows_of(256, 4, 12.0, 0)), ENOUGH)
    assert told["label_information_fraction"].value > 0.95
    assert told["label_information"].high <= math.log(4)
    rows, classes = rows_of(256, 4, 0.0, 0)
    untold = LabelInformation().measure("layer", sample_of(rows, classes), ENOUGH)["label_information"]
    assert untold.low == 0
    assert untold.high < 0.2


def test_the_interval_of_two_classes_holds_the_integral() -> None:
    distance = 1.5
    grid = torch.linspace(-12, 12, 20001, dtype=torch.float64)
    density = torch.exp(-grid.square() / 2) / math.sqrt(2 * math.pi)
    ratio = distance * grid + distance**2 / 2  # log p(x | its own class) - log p(x | the other one)
    exact = math.log(2) - float(torch.trapezoid(density * torch.nn.functional.softplus(-ratio), grid))
    held = 0
    for seed in range(40):
        classes = torch.randint(2, (96,), generator=torch.Generator().manual_seed(seed))
        rows = torch.randn(96, 5, generator=torch.Generator().manual_seed(seed + 99), dtype=torch.float64)
        rows[:, 0] += distance * classes
        found = LabelInformation().measure("layer", sample_of(rows, classes), ENOUGH)["label_information"]
        held += found.low <= exact <= found.high
    assert held >= 38


def test_a_label_does_not_help_to_predict_itself() -> None:
    rows, classes = rows_of(64, 8, 0.0, 1, width=32)
    probe = fit_probe(rows, classes, 8)
    assert float(probe.held_out.mean()) < 0.02
    assert float(probe.halfway.mean()) > float(probe.held_out.mean())


def test_info_nce_is_bounded_by_its_candidates_and_the_probe_is_not() -> None:
    sample = sample_of(*rows_of(512, 24, 20.0, 0, width=24))
    contrast = InfoNCE().measure("layer", sample, ENOUGH)["label_information_nce"]
    probe = LabelInformation().measure("layer", sample, ENOUGH)["label_information"]
    assert contrast.high <= math.log(CANDIDATES) < probe.value
    assert contrast.value > 0.8 * math.log(CANDIDATES)


@pytest.mark.parametrize("estimator", [LabelInformation(), InfoNCE()], ids=lambda e: e.name)
def test_one_class_alone_gives_nothing_and_a_class_for_every_row_says_nothing_from_above(estimator: Estimator) -> None:
    rows, _ = rows_of(32, 2, 1.0, 0)
    assert estimator.measure("layer", sample_of(rows, torch.zeros(32, dtype=torch.int64)), ENOUGH) == {}
    whole = {"label_information": math.log(32), "label_information_fraction": 1.0, "label_information_nce": math.log(8)}
    for name, found in estimator.measure("layer", sample_of(rows, torch.arange(32)), ENOUGH).items():
        assert found.low == 0
        assert found.high == pytest.approx(whole[name])
