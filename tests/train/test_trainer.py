"""What a whole run promises: repeatable, blind to what it must not see, exact in its trials, within its limits."""

from __future__ import annotations

import itertools
import logging
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from neuroexapt.config import GrowConfig
from neuroexapt.data import DataSplits, LabelledImages, make_splits
from neuroexapt.errors import CheckpointError, ConfigError, NonFiniteLossError, OutOfMemoryError
from neuroexapt.events import (
    BatchRecovered,
    CheckpointRejected,
    CheckpointSaved,
    EpochFinished,
    MutationApplied,
    ProposalMade,
    RunFinished,
    VerdictReached,
)
from neuroexapt.morphogenesis.proposer import Proposer
from neuroexapt.train import RunResult, Trainer
from neuroexapt.train.evaluate import evaluate
from neuroexapt.train.step import GuardedStep
from train.tiny import CLASSES, Record, config, data, final_state, network, raw, weights

FinalState = tuple[dict[str, dict[str, bytes]], dict[str, Any]]
ALWAYS_ROLLED_BACK = {"min_gain": 0.99}


def run(settings: GrowConfig, run_dir: Path, splits: DataSplits | None = None, **how: Any) -> tuple[RunResult, Record]:
    record = Record()
    result = Trainer(settings, run_dir, [record]).fit(how.pop("model", None) or network(), splits or data(), **how)
    return result, record


def with_wrong_labels(split: LabelledImages) -> LabelledImages:
    return LabelledImages(images=split.images, labels=(split.labels + 1) % len(CLASSES))


def with_statistics_of(splits: DataSplits, **parts: LabelledImages) -> DataSplits:
    whole = {"train": splits.train, "validation": splits.validation, "test": splits.test} | parts
    return make_splits(name=splits.name, class_names=splits.class_names, **whole)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunResult, Record, FinalState]:
    """A run with the usual settings, beside which others are laid."""
    folder = tmp_path_factory.mktemp("plain")
    return *run(config(), folder), final_state(folder)


def test_two_runs_of_one_seed_are_equal_to_the_bit(plain: tuple[RunResult, Record, FinalState], tmp_path: Path) -> None:
    first, told, state = plain
    before = torch.get_rng_state()
    torch.manual_seed(99)  # what the caller did before is none of the run's business
    seeded = torch.get_rng_state()
    second, told_again = run(config(), tmp_path)
    assert torch.equal(torch.get_rng_state(), seeded)  # and the run leaves the caller's generator alone
    torch.set_rng_state(before)
    assert weights(first.model) == weights(second.model)
    assert state == final_state(tmp_path)
    assert told.facts() == told_again.facts()
    assert first.finished.num_accepted == 2
    assert len(told.of(MutationApplied)) == 2


def test_wrong_test_labels_change_nothing_but_the_test_figures(
    plain: tuple[RunResult, Record, FinalState], tmp_path: Path
) -> None:
    _, told, state = plain
    poisoned = with_statistics_of(data(), test=with_wrong_labels(data().test))
    _, told_again = run(config(), tmp_path, poisoned)
    assert state[0] == final_state(tmp_path)[0]
    facts, again = told.facts(), told_again.facts()
    assert facts[:-1] == again[:-1]
    assert facts[-1]["test_loss"] != again[-1]["test_loss"]


def test_wrong_validation_labels_change_decisions_but_no_gradient(
    plain: tuple[RunResult, Record, FinalState], tmp_path: Path
) -> None:
    poisoned = with_statistics_of(data(), validation=with_wrong_labels(data().validation))
    still = config(morphogenesis={"max_events": 0})
    for name, splits in (("a", data()), ("b", poisoned)):
        run(still, tmp_path / name, splits)
    assert final_state(tmp_path / "a")[0] == final_state(tmp_path / "b")[0]
    _, told, _ = plain
    _, told_again = run(config(), tmp_path / "c", poisoned)
    verdicts = [[event.accepted for event in record.of(VerdictReached)] for record in (told, told_again)]
    assert verdicts[0] != verdicts[1]
    first_epochs = [[event.train_loss for event in record.of(EpochFinished)[:2]] for record in (told, told_again)]
    assert first_epochs[0] == first_epochs[1]


@cache
def without_events(**train: Any) -> FinalState:
    with tempfile.TemporaryDirectory() as folder:
        run(config(train, {"max_events": 0}), Path(folder))
        return final_state(Path(folder))


def assert_equal_to_a_run_without_events(tmp_path: Path, settings: GrowConfig, **train: Any) -> Record:
    never_tensors, never_state = without_events(**train)
    _, told = run(settings, tmp_path / "tried")
    tensors, state = final_state(tmp_path / "tried")
    assert tensors == never_tensors
    for key in ("random", "progress", "optimizer", "best", "step"):
        assert state[key] == never_state[key], key
    assert state["engine"]["lineage"]["steps"] == []
    assert state["engine"]["history"]["losses"] == never_state["engine"]["history"]["losses"]
    return told


GROWS = [("Widen", "adamw", 1.4), ("Widen", "sgd", 2), ("InsertLayer", "adamw", 0.6), ("InsertLayer", "sgd", 1)]
SHRINKS = [(kind, "adamw", 1) for kind in ("PruneUnits", "PruneWeights", "RemoveLayer")]
SETS = [("AddRegularization", "sgd", 1), ("SwapOperation", "adamw", 1)]


@pytest.mark.parametrize(("kind", "optimizer", "trial_epochs"), [*GROWS, *SHRINKS, *SETS])
def test_a_trial_that_is_rolled_back_leaves_the_run_in_which_it_was_never_proposed(
    kind: str, optimizer: str, trial_epochs: float, tmp_path: Path
) -> None:
    growth = ALWAYS_ROLLED_BACK | {"kinds": (kind,), "trial_epochs": trial_epochs}
    settings = config({"optimizer": optimizer}, growth)
    told = assert_equal_to_a_run_without_events(tmp_path, settings, optimizer=optimizer)
    verdicts = told.of(VerdictReached)
    assert len(verdicts) >= (1 if kind == "RemoveLayer" else 2)  # it has one place here, which is banned then
    assert not any(event.accepted for event in verdicts)
    main = [event.epoch for event in told.of(EpochFinished) if event.arm != "trial"]
    assert main == list(range(1, 9))


@pytest.mark.parametrize("error", [OutOfMemoryError("no room"), NonFiniteLossError("not finite")])
def test_a_trial_whose_step_fails_is_rolled_back_and_the_run_goes_on(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = GuardedStep._update

    def fails_when_grown(step: GuardedStep) -> None:
        original(step)
        if sum(p.numel() for p in step._model.parameters()) > 302 and step._optimizer.param_groups[0]["lr"] < 0.0095:
            step.load_state_dict({"num_micro_batches": 7, "num_bad_batches": 2})
            raise error

    monkeypatch.setattr(GuardedStep, "_update", fails_when_grown)
    told = assert_equal_to_a_run_without_events(tmp_path, config())
    verdicts = told.of(VerdictReached)
    assert len(verdicts) >= 2
    assert {event.reason for event in verdicts} == {f"the trial was given up: {error}"}
    assert [event.position for event in verdicts] == [event.position + 1 for event in told.of(ProposalMade)]
    assert told.of(RunFinished)[0].flops_by_purpose["discarded"] == sum(event.discarded_flops for event in verdicts)


def test_the_same_failure_on_the_main_line_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(step: GuardedStep) -> None:
        raise OutOfMemoryError("optimizer step: no room")

    monkeypatch.setattr(GuardedStep, "_update", fails)
    with pytest.raises(OutOfMemoryError, match="no room"):
        run(config(), tmp_path)
    assert (tmp_path / "checkpoints" / "step-00000000").is_dir()


def test_running_out_of_memory_outside_a_step_has_the_same_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> Any:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")

    monkeypatch.setattr(Proposer, "rank", fails)
    with pytest.raises(OutOfMemoryError, match=r"epoch 3: .*can't allocate memory.* saved up to its last checkpoint"):
        run(config(), tmp_path)


def test_a_bad_batch_is_told_and_does_not_condemn_a_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, calls = GuardedStep._clip, []

    def sometimes_bad(step: GuardedStep) -> bool:
        calls.append(1)
        return original(step) and len(calls) % 5 != 3

    monkeypatch.setattr(GuardedStep, "_clip", sometimes_bad)
    _, told = run(config(), tmp_path)
    assert {event.action for event in told.of(BatchRecovered)} == {"the batch was skipped"}
    assert any(event.accepted for event in told.of(VerdictReached))


@pytest.mark.parametrize("ratio", ["max_parameter_ratio", "max_flop_ratio"])
def test_a_ratio_of_one_admits_no_edit(ratio: str, tmp_path: Path) -> None:
    result, told = run(config(morphogenesis={ratio: 1.0}), tmp_path)
    assert not told.of(ProposalMade)
    assert result.finished.num_parameters == result.finished.num_parameters_start


@pytest.mark.parametrize(("ratio", "figure"), [("max_parameter_ratio", "num_parameters"), ("max_flop_ratio", "flops")])
def test_the_network_never_exceeds_its_ratio(ratio: str, figure: str, tmp_path: Path) -> None:
    growth = {ratio: 1.6, "interval_epochs": 1, "first_epoch": 0}
    _, told = run(config({"epochs": 9}, growth), tmp_path)
    sizes = [getattr(event, figure) for event in told.of(EpochFinished)]
    assert sizes[0] < max(sizes) <= 1.6 * sizes[0]


def test_the_numbers_and_epochs_of_events_are_limited(tmp_path: Path) -> None:
    _, told = run(config({"epochs": 10}, {"max_events": 1}), tmp_path / "a")
    assert [event.accepted for event in told.of(VerdictReached)].count(True) == 1
    assert told.of(VerdictReached)[-1].accepted
    _, told = run(config({"epochs": 10}, {"first_epoch": 4, "last_epoch": 6}), tmp_path / "b")
    epochs = [event.epoch for event in told.of(ProposalMade)]
    assert epochs
    assert min(epochs) >= 4
    assert max(epochs) <= 6


def test_without_events_no_candidate_is_ever_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Proposer, "rank", lambda *_: pytest.fail("measured"))
    run(config(morphogenesis={"max_events": 0}), tmp_path)


def test_a_run_that_ends_within_a_trial_does_not_begin_it(tmp_path: Path) -> None:
    _, told = run(config({"epochs": 3}, {"trial_epochs": 2}), tmp_path)
    assert not told.of(ProposalMade)


def test_a_run_out_of_time_is_saved_and_completes_when_it_is_resumed(
    plain: tuple[RunResult, Record, FinalState], tmp_path: Path
) -> None:
    record = Record()
    hurried = config({"max_seconds": 1e-6})
    result = Trainer(hurried, tmp_path / "cut", [record]).fit(network(), data())
    assert not result.is_complete
    assert result.finished.reason == "stopped by max_seconds = 1e-06"
    for _ in range(2):
        result = Trainer(hurried, tmp_path / "cut", [record]).fit(network(), data(), resume=True)
        assert not result.is_complete
    assert Trainer(config(), tmp_path / "cut", [record]).fit(network(), data(), resume=True).is_complete
    assert plain[2] == final_state(tmp_path / "cut")


def test_the_chosen_model_is_the_checkpoint_with_the_best_validation_accuracy(tmp_path: Path) -> None:
    splits = with_statistics_of(data(), validation=with_wrong_labels(data().validation))  # gets worse with training
    result, told = run(config({"epochs": 12}), tmp_path, splits)
    saved = {event.epoch for event in told.of(CheckpointSaved)}
    verdicts = {event.epoch: event.accepted for event in told.of(VerdictReached)}
    counted = [e for e in told.of(EpochFinished) if e.arm == "main" or verdicts[e.epoch] == (e.arm == "trial")]
    best = max(counted, key=lambda e: (e.validation_accuracy, -e.validation_loss))
    assert best.epoch in saved
    assert best.epoch < 12
    finished = result.finished
    assert (finished.chosen_epoch, finished.validation_loss) == (best.epoch, best.validation_loss)
    assert finished.num_parameters == best.num_parameters
    for split, loss in ((splits.validation, finished.validation_loss), (splits.test, finished.test_loss)):
        measured, _ = evaluate(result.model, [(data().normalise(split.images), split.labels)])
        assert measured == pytest.approx(loss, rel=1e-5)
    assert (tmp_path / "checkpoints" / f"step-{best.epoch:08d}").is_dir()


def damage(path: Path) -> None:
    content = bytearray((path / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (path / "model.safetensors").write_bytes(content)


def test_an_unreadable_choice_is_replaced_by_the_latest_model_with_its_own_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = with_statistics_of(data(), validation=with_wrong_labels(data().validation))
    original = Trainer._finish

    def damaged_first(trainer: Trainer, under_way: Any, reason: str) -> RunResult:
        damage(tmp_path / "checkpoints" / under_way.best.checkpoint)
        return original(trainer, under_way, reason)

    monkeypatch.setattr(Trainer, "_finish", damaged_first)
    result, told = run(config(), tmp_path, splits)
    assert len(told.of(CheckpointRejected)) == 1
    assert result.finished.chosen_epoch == 8
    assert result.finished.validation_loss == told.of(EpochFinished)[-1].validation_loss
    assert told.of(EpochFinished)[-1].arm == "main"


@pytest.mark.parametrize("checkpoint_every", [2, 3])
def test_a_checkpoint_that_is_due_in_a_trial_comes_right_after_it(checkpoint_every: int, tmp_path: Path) -> None:
    settings = config({"checkpoint_every": checkpoint_every, "epochs": 10}, {"trial_epochs": 2, "interval_epochs": 3})
    _, told = run(settings, tmp_path)
    saved = [event.epoch for event in told.of(CheckpointSaved)]
    assert saved[-1] == 10
    assert max(b - a for a, b in itertools.pairwise(saved)) <= checkpoint_every + 1


def test_a_new_run_never_writes_over_another_one(tmp_path: Path) -> None:
    run(config({"epochs": 1}), tmp_path)
    with pytest.raises(CheckpointError, match=r"holds the checkpoints of a run. Resume it, or give another run_dir"):
        run(config({"epochs": 1}), tmp_path)


@pytest.mark.parametrize("count", [2, 3, 5, 9])
def test_a_tiny_data_set_trains_and_grows(count: int, tmp_path: Path) -> None:
    _, told = run(config(), tmp_path, data(count))
    assert len(told.of(VerdictReached)) >= 2
    proposal = told.of(ProposalMade)[0]
    assert (proposal.num_samples, proposal.score_flops) == (0, 0)
    assert ("8 samples take" in proposal.score_remark) == (count >= 4)


def test_evidence_without_enough_data_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"greedy. reads evidence of the training data, and there are none"):
        run(config(morphogenesis={"policy": "greedy"}), tmp_path, data(3))


def test_a_candidate_whose_evidence_is_too_large_is_still_tried_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        _, told = run(config(morphogenesis={"score_bytes": 100}), tmp_path)
    assert "needed at most 100" in caplog.text
    assert len(told.of(VerdictReached)) == 2


def test_parameters_of_a_rolled_back_layer_leave_the_optimizer(tmp_path: Path) -> None:
    run(config(morphogenesis=ALWAYS_ROLLED_BACK | {"kinds": ("InsertLayer",)}), tmp_path)
    tensors, state = final_state(tmp_path)
    names = {name for members in state["optimizer"]["members"] for name in members}
    assert names == {name for name, _ in network().named_parameters()}
    assert {name.rpartition("/")[0] for name in tensors["optimizer"]} == names


class WithDropout(nn.Module):
    """Nothing but a random train-mode forward."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 6), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.first(x.flatten(1)))
        return self.second(hidden + 0.1 * torch.randn_like(hidden) if self.training else hidden)


def test_a_model_that_draws_random_numbers_in_its_forward_is_repeatable_and_rolls_back(tmp_path: Path) -> None:
    for name, growth in (("a", ALWAYS_ROLLED_BACK), ("b", ALWAYS_ROLLED_BACK), ("c", {"max_events": 0})):
        with torch.random.fork_rng():
            torch.manual_seed(1)
            model = WithDropout()
        run(config(morphogenesis=growth), tmp_path / name, model=model)
    first, again, never = (final_state(tmp_path / name) for name in "abc")
    assert first == again
    assert (first[0], first[1]["random"]) == (never[0], never[1]["random"])


def test_a_grown_run_ends_with_the_last_model_in_place(tmp_path: Path) -> None:
    model = network()
    result, told = run(config(), tmp_path, model=model)
    tensors, _ = final_state(tmp_path)
    assert {name: raw(tensor) for name, tensor in model.state_dict().items()} == tensors["model"]
    assert told.of(RunFinished) == [result.finished]
