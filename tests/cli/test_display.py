import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from neuroexapt.cli.display import Display
from neuroexapt.events import (
    BatchRecovered,
    CheckpointRejected,
    CheckpointSaved,
    EpochFinished,
    MutationApplied,
    ProposalMade,
    RunFinished,
    RunResumed,
    RunStarted,
    VerdictReached,
)

STARTED = RunStarted(
    command="neuroexapt grow",
    seed=0,
    device="cpu",
    model="resnet",
    data="digits",
    num_train=1000,
    num_validation=200,
    num_test=300,
    num_parameters=4_810,
    flops=1_250_000,
    config={"train": {"epochs": 30}},
)
MUTATION = {"kind": "Widen"}
PROPOSAL = ProposalMade(
    epoch=6,
    trigger="every 3 epochs",
    policy="evidence",
    mutations=[MUTATION],
    description="widen stages.0.0.conv1 8 -> 12 channels",
    predicted_gain=0.021,
    evidence=1e-3,
    evidence_spread=1e-4,
    num_samples=512,
    added_flops=150_000,
    uniform_choice="widen stem",
    num_candidates=14,
    runners_up=[],
)
APPLIED = MutationApplied(
    epoch=6,
    mutation=MUTATION,
    description=PROPOSAL.description,
    output_change=1.2e-7,
    parameter_delta=936,
    flop_delta=150_000,
    seconds=0.01,
)
FINISHED = RunFinished(
    reason="completed",
    chosen_epoch=28,
    validation_loss=0.07,
    validation_accuracy=0.981,
    test_loss=0.08,
    test_accuracy=0.978,
    num_parameters=12_345,
    flops=2_500_000,
    num_parameters_start=4_810,
    flops_start=1_250_000,
    total_flops=2_080_000_000_000,
    num_accepted=5,
    num_rolled_back=1,
    seconds=200.0,
    peak_memory_bytes=534 * 2**20,
)


def epoch(number: int, arm: str = "main") -> EpochFinished:
    return EpochFinished(
        epoch=number,
        arm=arm,
        train_loss=0.512,
        validation_loss=0.447,
        validation_accuracy=0.912,
        num_parameters=4_810,
        flops=1_250_000,
        total_flops=10**9,
        seconds=1.2,
        learning_rate=1e-3,
        widths={},
        num_layers=4,
        memory_bytes=2**28,
    )


def verdict(accepted: bool) -> VerdictReached:
    trial_loss = 0.412 if accepted else 0.460
    return VerdictReached(
        epoch=7,
        accepted=accepted,
        mutations=[MUTATION],
        description=PROPOSAL.description,
        predicted_gain=0.021,
        measured_gain=0.447 - trial_loss,
        control_loss=0.447,
        trial_loss=trial_loss,
        reason="gain below 0",
    )


def without_colours(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def shown(*events, terminal: bool = False, width: int = 80) -> str:
    file = io.StringIO()
    display = Display(Console(file=file, force_terminal=terminal, width=width))
    for event in events:
        display.send(event)
    display.close()
    return file.getvalue()


def test_an_epoch_is_one_plain_line_with_the_length_of_the_run():
    assert shown(STARTED, epoch(7)).splitlines()[-1] == (
        "epoch  7/30  train 0.512  validation 0.447  accuracy 91.2 %  4,810 parameters  1.2 s"
    )


def test_the_arm_of_a_trial_is_named():
    lines = shown(epoch(7, "control"), epoch(7, "trial")).splitlines()
    assert [line.rpartition(" ")[2] for line in lines] == ["(control)", "(trial)"]


def test_a_proposal_says_what_where_why_cost_and_predicted_gain():
    assert shown(STARTED, PROPOSAL).splitlines()[-1] == (
        "epoch  6  try: widen stages.0.0.conv1 8 -> 12 channels; why: every 3 epochs; first by evidence of 14 "
        "candidates; cost +12 % FLOPs, predicted gain +0.021"
    )


def test_a_choice_that_was_not_scored_has_no_predicted_gain():
    unscored = replace(PROPOSAL, num_samples=0, predicted_gain=0.0, num_scored=0)
    lines = shown(STARTED, unscored, APPLIED, verdict(True)).splitlines()
    assert "first by evidence of 14 candidates, none of them scored; " in lines[-2]
    assert lines[-2].endswith("predicted gain not known")
    assert "gain +0.035, predicted not known; " in lines[-1]


def test_a_proposal_right_after_resuming_gives_its_cost_in_flops():
    assert "cost 150 kFLOP more per sample, predicted" in shown(RunResumed(epoch=6, path="x"), PROPOSAL)


def test_a_kept_edit_says_what_it_cost_and_brought():
    assert shown(STARTED, APPLIED, verdict(True)).splitlines()[-1] == (
        "epoch  7  kept: validation loss 0.412 with it, 0.447 without; gain +0.035, predicted +0.021; "
        "cost +936 parameters, +12 % FLOPs; outputs moved by 1.2e-07 at the edit"
    )


def test_an_edit_rolled_back_gives_the_reason():
    line = shown(APPLIED, verdict(False))
    assert (
        "rolled back: validation loss 0.460 with it, 0.447 without; gain -0.013, predicted +0.021: gain below 0" in line
    )


def test_a_verdict_without_an_edit_gives_the_reason_alone():
    assert shown(verdict(False)) == ("epoch  7  rolled back: widen stages.0.0.conv1 8 -> 12 channels: gain below 0\n")


@pytest.mark.parametrize("width", [40, 80, 120])
def test_at_a_terminal_an_event_is_a_few_indented_lines_that_fit(width):
    lines = without_colours(shown(PROPOSAL, APPLIED, verdict(False), terminal=True, width=width)).splitlines()
    heads = [line for line in lines if not line.startswith(" " * 10)]
    assert [head[:14].strip() for head in heads] == ["epoch  6  try:", "epoch  7  roll"]
    assert all(len(line) <= width for line in lines)
    assert len(lines) >= 6


def test_the_uniform_policy_takes_the_next_in_turn():
    assert "next in turn of 14 candidates" in shown(replace(PROPOSAL, policy="uniform"))


def test_faults_and_bad_checkpoints_are_said_and_saved_ones_are_not():
    out = shown(
        CheckpointSaved(epoch=1, path="good", is_best=True),
        CheckpointRejected(path="bad", reason="a hash differs"),
        BatchRecovered(epoch=2, step=9, fault="out of memory", action="micro-batch 32"),
    )
    assert out == "checkpoint bad passed over: a hash differs\nepoch  2  step 9: out of memory; micro-batch 32\n"


def test_the_closing_block_has_the_numbers_that_matter():
    out = shown(FINISHED)
    for part in (
        "5 edits kept, 1 rolled back",
        "97.8 %",
        "4,810 -> 12,345",
        "1.25 -> 2.5 MFLOP",
        "3 min 20 s",
        "534 MiB",
    ):
        assert part in out
    assert "epoch 28, chosen on validation" in out


@pytest.mark.parametrize("terminal", [False, True])
def test_brackets_in_a_description_are_text(terminal):
    event = BatchRecovered(epoch=1, step=1, fault="[red]x[/red] :bomb: [/nope]", action="none")
    assert "[red]x[/red] :bomb: [/nope]" in shown(event, terminal=terminal)


def test_at_a_terminal_a_bar_shows_the_epoch_and_fits_eighty_columns():
    out = shown(STARTED, epoch(7, "trial"), terminal=True)
    assert "7/30" in out
    assert "trial: loss 0.447" in out
    assert "epoch  7/30  train" not in out


def test_rewind_and_a_second_close_do_nothing():
    file = io.StringIO()
    display = Display(Console(file=file, force_terminal=True))
    display.send(epoch(1))
    display.close()
    before = file.getvalue()
    display.rewind(0)
    display.close()
    assert file.getvalue() == before
