"""Scoring all candidates at once: right numbers, no trace, within its share of the FLOPs."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD

from contracts.state import fingerprint
from neuroexapt.analysis.scores import SCORES, Junction, JunctionShape
from neuroexapt.config import MorphogenesisConfig
from neuroexapt.events import ProposalMade, VerdictReached
from neuroexapt.graph import FlopCount
from neuroexapt.morphogenesis import Morphogenesis
from neuroexapt.morphogenesis.assay import Assay, assay
from neuroexapt.morphogenesis.scoring import Effort, Scores, score_all
from neuroexapt.morphogenesis.scoring.recorder import Recorder
from neuroexapt.morphogenesis.scoring.recordings import Recording
from neuroexapt.morphogenesis.scoring.rows import columns_of, placed_at, rows_of
from neuroexapt.surgery import Mutation, Surgeon, Widen
from neuroexapt.surgery.pieces import LowRankBranch
from train.tiny import Record

PLENTY = Effort(max_flops=10**10, max_samples=24, max_bytes=16 << 20)
KINDS = ("Widen", "InsertLayer", "AddBranch", "AddResidual", "AddAttention", "AddPooling", "SplitUnits", "PruneUnits")
INPUTS = torch.randn(24, 2, 6, 6, generator=torch.Generator().manual_seed(0))
TARGETS = (INPUTS[:, 0, 0, 0] * INPUTS[:, 1, 1, 1] > 0).long()
BATCHES = [(INPUTS[i : i + 12], TARGETS[i : i + 12]) for i in (0, 12)]


class Net(nn.Module):
    """Strides, padding, batch norm, a residual connection and an in-place activation."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.second = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.third = nn.Conv2d(4, 4, 1)
        self.act = nn.ReLU(inplace=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.second(torch.relu(self.norm(self.first(x)))))
        x = x + torch.tanh(self.third(x))
        return self.head(x.mean((2, 3)))


def surgeon(seed: int = 0) -> Surgeon:
    torch.manual_seed(seed)
    model = Net().train()
    return Surgeon(model, INPUTS[:4], SGD(model.parameters(), lr=0.1, momentum=0.9), seed)


def scores(of: Surgeon, mutations: list[Mutation], name: str = "residual", effort: Effort = PLENTY) -> Scores:
    found = [assay(of, mutation) for mutation in mutations]
    return score_all(of.graph, found, BATCHES, F.cross_entropy, SCORES[name], effort)


@pytest.fixture(autouse=True)
def fixture_global_generator_is_put_back() -> Any:
    with torch.random.fork_rng():
        yield


@pytest.fixture(name="one", scope="module")
def fixture_one() -> Surgeon:
    with torch.random.fork_rng():
        return surgeon()


@pytest.fixture(name="found", scope="module")
def fixture_found(one: Surgeon) -> list[Assay]:
    """All axes, and one place of every other kind."""
    mutations = one.candidates(("Widen",))
    mutations += [one.candidates((kind,))[-1] for kind in KINDS if kind != "Widen"]
    return [assay(one, mutation) for mutation in mutations]


@pytest.fixture(name="together", scope="module")
def fixture_together(one: Surgeon, found: list[Assay]) -> Scores:
    with torch.random.fork_rng():
        return score_all(one.graph, found, BATCHES, F.cross_entropy, SCORES["residual"], PLENTY)


def test_every_candidate_has_a_score_or_a_reason_and_few_copies_are_enough(
    found: list[Assay], together: Scores
) -> None:
    assert together.evidence.keys() | together.reasons.keys() == set(range(len(found)))
    kinds = {type(found[i].mutation).__name__ for i in together.evidence}
    assert kinds == {"Widen", "InsertLayer", "AddBranch", "AddResidual", "AddAttention", "AddPooling"}
    assert together.num_twins <= 4
    assert all(e.num_samples == 24 and math.isfinite(e.spread) for e in together.evidence.values())
    reasons = {type(found[i].mutation).__name__: reason for i, reason in together.reasons.items()}
    assert "copies of old ones" in reasons["SplitUnits"]
    assert "changes the function" in reasons["PruneUnits"]


def test_a_joint_copy_gives_the_score_that_a_copy_alone_gives(
    one: Surgeon, found: list[Assay], together: Scores
) -> None:
    for index in together.evidence:
        alone = score_all(one.graph, [found[index]], BATCHES, F.cross_entropy, SCORES["residual"], PLENTY).evidence[0]
        assert together.evidence[index].value == pytest.approx(alone.value, rel=1e-3, abs=1e-7), found[index]


def test_scoring_touches_neither_model_nor_optimizer_nor_generator() -> None:
    one = surgeon()
    F.cross_entropy(one.model(INPUTS), TARGETS).backward()
    one.optimizers[0].step()
    one.graph  # noqa: B018  # traced before
    before = fingerprint(one.model, one.optimizers[0])
    found = [assay(one, one.candidates((kind,))[0]) for kind in ("Widen", "AddBranch", "AddResidual")]
    for score in SCORES.values():
        assert score_all(one.graph, found, BATCHES, F.cross_entropy, score, PLENTY).evidence
        assert fingerprint(one.model, one.optimizers[0]) == before
    assert len(one.lineage) == 0


def gradient_of_new_columns(one: Surgeon, mutation: Widen, path: str, old: int) -> Tensor:
    """``[n, out, new, taps]``: each sample's own gradient, by autograd on the edited model in train mode."""
    patch = one.apply(mutation)
    weight = one.model.get_parameter(f"{path}.weight")
    each = [
        torch.autograd.grad(loss, weight, retain_graph=True)[0][:, old:]
        for inputs, targets in BATCHES
        for loss in F.cross_entropy(one.model(inputs), targets, reduction="none")
    ]
    one.revert(patch)
    return torch.stack(each).double()


@pytest.mark.parametrize(("axis", "paths", "old"), [("first", ("second",), 3), ("second", ("third", "head"), 4)])
def test_the_gradient_norm_is_that_of_autograd_at_the_zero_entries(axis: str, paths: tuple[str, ...], old: int) -> None:
    one = surgeon()
    mutation = next(m for m in one.candidates(("Widen",)) if m.place.startswith(axis))
    assert isinstance(mutation, Widen)
    found = scores(one, [mutation], "gradient_norm").evidence[0].value
    expected = 0.0
    for reader in paths:
        each = gradient_of_new_columns(one, mutation, reader, old).flatten(1)
        expected += float((each @ each.T).fill_diagonal_(0).sum()) / (24 * 23)
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-9)


@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 0, 1), (2, 1, 1), (2, 2, 2), (3, 1, 1)])
def test_rows_of_a_convolution_are_those_of_an_explicit_unfold(stride: int, padding: int, dilation: int) -> None:
    conv = nn.Conv2d(3, 5, 3, stride=stride, padding=padding, dilation=dilation).double()
    x = torch.randn(4, 3, 8, 7, dtype=torch.float64, requires_grad=True)
    y = conv(x)
    gradient = torch.randn_like(y)
    count = y[0, 0].numel()
    positions = torch.stack([torch.randperm(count) for _ in range(4)])
    columns = columns_of(conv, x.detach(), y.detach(), positions)
    unfolded = F.unfold(x.detach(), 3, dilation, padding, stride).transpose(1, 2)
    assert columns is not None
    assert torch.equal(columns, torch.stack([unfolded[i, positions[i]] for i in range(4)]))
    asked = rows_of(gradient, positions, channels_last=False)
    expected = torch.autograd.grad(y, conv.weight, gradient, retain_graph=True)[0]
    assert torch.allclose(torch.einsum("npo,npk->ok", asked, columns).view_as(expected), expected)
    everywhere = torch.arange(x[0, 0].numel()).expand(4, -1)
    placed = placed_at(conv, gradient, x.shape[2:], everywhere)
    units = rows_of(x.detach(), everywhere, channels_last=False)
    by_unit = torch.einsum("npg,npc->gc", placed, units).view(5, 9, 3).transpose(1, 2).reshape(expected.shape)
    assert torch.allclose(by_unit, expected)


def test_the_residual_score_of_a_convolution_is_that_of_its_unfolded_rows() -> None:
    one = surgeon()
    mutation = next(m for m in one.candidates(("Widen",)) if m.place.startswith("first"))
    found = scores(one, [mutation]).evidence[0].value
    patch = one.apply(mutation)
    rows: list[tuple[Tensor, Tensor]] = []

    def listen(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        columns = F.unfold(args[0].detach(), 3, 1, 1, 2).transpose(1, 2)
        output.register_hook(lambda gradient: rows.append((columns, 12 * gradient.flatten(2).transpose(1, 2))))
        return output.clone()

    handle = one.model.get_submodule("second").register_forward_hook(listen)
    for inputs, targets in BATCHES:
        F.cross_entropy(one.model(inputs), targets).backward()
    handle.remove()
    one.revert(patch)
    columns, gradients = (torch.cat(parts) for parts in zip(*rows, strict=True))
    junction = Junction(gradients, columns[:, :, 27:], columns[:, :, :27], num_positions=9)
    assert found == pytest.approx(SCORES["residual"].estimate(junction).value, rel=1e-3)


def test_nothing_is_left_behind_where_the_loss_fails(found: list[Assay]) -> None:
    one = surgeon()
    before = fingerprint(one.model, one.optimizers[0])

    def fails(outputs: Tensor, targets: Tensor) -> Tensor:
        raise MemoryError("injected")

    with pytest.raises(MemoryError, match="injected"):
        score_all(one.graph, found, BATCHES, fails, SCORES["residual"], PLENTY)
    assert fingerprint(one.model, one.optimizers[0]) == before


def test_hooks_are_removed_whatever_happens() -> None:
    model = nn.Sequential(nn.Linear(2, 3), LowRankBranch(3, 3, 1))
    shape = JunctionShape(1, 1, 3, 3)
    recordings = [
        Recording("0", shape, torch.ones(2, dtype=torch.bool), ("0",), "reader"),
        Recording("1", shape, None, ("0",), "reader"),
    ]

    def records_and_fails() -> None:
        with Recorder(model, recordings, 0).installed():
            assert "branch" in vars(model[1])
            assert model[0]._forward_hooks
            raise MemoryError("injected")

    with pytest.raises(MemoryError, match="injected"):
        records_and_fails()
    assert "branch" not in vars(model[1])
    assert not any(module._forward_hooks for module in model.modules())


def test_a_loss_that_is_not_a_number_is_named_and_scores_nothing(
    one: Surgeon, found: list[Assay], caplog: pytest.LogCaptureFixture
) -> None:
    def broken(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets) * math.nan

    result = score_all(one.graph, found[:1], BATCHES, broken, SCORES["residual"], PLENTY)
    assert not result.evidence
    assert "second: found a NaN or infinite gradient" in caplog.text


@pytest.mark.parametrize("name", SCORES)
def test_the_cap_holds_by_measured_count(name: str, one: Surgeon, found: list[Assay]) -> None:
    num_scored = []
    for max_flops in (10**6, 4 * 10**6, 16 * 10**6):
        effort = Effort(max_flops, 24, 16 << 20)
        with FlopCount() as count:
            result = score_all(one.graph, found, BATCHES, F.cross_entropy, SCORES[name], effort)
        assert count.flops == result.flops <= max_flops
        assert bool(result.evidence) == (not result.remark)
        num_scored.append(len(result.evidence))
    assert num_scored[-1] > 0


def test_below_eight_samples_nothing_is_scored_and_the_remark_says_so(one: Surgeon, found: list[Assay]) -> None:
    effort = Effort(1000, 24, 16 << 20)
    result = score_all(one.graph, found, BATCHES, F.cross_entropy, SCORES["residual"], effort)
    assert (result.evidence, result.flops) == ({}, 0)
    assert result.remark.startswith("8 samples take")
    assert "allowed are 1,000" in result.remark


def engine(sink: Record) -> Morphogenesis:
    torch.manual_seed(1)
    model = Net().train()
    config = MorphogenesisConfig(
        first_epoch=1.0,
        interval_epochs=1.0,
        policy="greedy",
        kinds=("Widen",),
        trial_epochs=1.0,
        overhead_fraction=None,
    )
    return Morphogenesis(
        model,
        SGD(model.parameters(), lr=0.05),
        INPUTS[:4],
        config,
        evidence_batches=lambda epoch: BATCHES,
        sink=sink,
        batch_size=12,
    )


@pytest.mark.parametrize("num_steps", [2, 400])
def test_an_event_tells_what_scoring_took_and_was_allowed(num_steps: int) -> None:
    told = Record()
    of = engine(told)
    flops = of.surgeon.graph.cost.flops_per_sample
    for _ in range(num_steps):
        of.after_step(0.5)
    of.conclude(0.5)
    assert of.history.unscored_flops == 3 * num_steps * 12 * flops
    of.consider()
    proposal = told.events[0]
    assert isinstance(proposal, ProposalMade)
    assert proposal.score_flops_allowed == int(0.02 * 3 * num_steps * 12 * flops)
    assert proposal.score_flops <= proposal.score_flops_allowed
    assert of.ledger.flops["proposing"] == proposal.score_flops
    assert (proposal.num_samples >= 8) == (proposal.score_flops > 0) == (not proposal.score_remark) == (num_steps > 2)
    assert proposal.score == "residual"
    assert of.history.unscored_flops == (0 if num_steps > 2 else 3 * num_steps * 12 * flops)  # else carried over


def test_a_verdict_repeats_the_prediction_of_its_proposal_though_predictions_have_learnt_since() -> None:
    told = Record()
    of = engine(told)
    loss = {"main": 0.5, "control": 0.5, "trial": 0.1}
    while not isinstance(told.events[-1] if told.events else None, VerdictReached):
        arm = of.arm
        for _ in range(100):
            of.after_step(0.5)
        of.after_epoch(loss[arm])
    proposal, verdict = told.events[0], told.events[-1]
    assert isinstance(proposal, ProposalMade)
    assert isinstance(verdict, VerdictReached)
    assert of.history.calibration
    assert verdict.predicted_gain == proposal.predicted_gain > 0
