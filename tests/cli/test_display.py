import io
import math
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
    position=6.0,
    trial_steps=40,
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
        reason="a gain of ... %",
        position=7.5,
        relative_gain=(0.447 - trial_loss) / 0.447,
        low=(0.447 - trial_loss) / 0.447 - 0.03,
        high=(0.447 - trial_loss) / 0.447 + 0.03,
        needed=0.012,
        trial_steps=40,
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
        "candidates; cost +12 % FLOPs, gain +0.021 nats predicted; a trial of 40 steps"
    )


def test_several_edits_and_a_strict_trigger_are_told():
    several = replace(
        PROPOSAL, mutations=[MUTATION] * 2, description="widen a; insert b", strictness={"interval": 1.35}
    )
    line = shown(STARTED, replace(several, position=6.504, trial_steps=0)).splitlines()[-1]
    assert line.startswith(
        "epoch 6.5  try 2 edits: widen a; insert b; why: every 3 epochs (strictness: interval 1.35);"
    )
    assert line.endswith("; no trial")


def test_a_choice_that_was_not_scored_has_no_predicted_gain():
    unscored = replace(PROPOSAL, num_samples=0, predicted_gain=0.0, num_scored=0)
    lines = shown(STARTED, unscored, APPLIED, verdict(True)).splitlines()
    assert "first by evidence of 14 candidates, none of them scored; " in lines[-2]
    assert "gain not predicted; " in lines[-2]
    assert "+0.035 nats, not predicted; " in lines[-1]


def test_a_proposal_right_after_resuming_gives_its_cost_in_flops():
    assert "cost 150 kFLOP more per sample, gain +0.021 nats predicted" in shown(
        RunResumed(epoch=6, path="x"), PROPOSAL
    )


def test_a_kept_edit_says_what_it_cost_and_brought():
    assert shown(STARTED, APPLIED, verdict(True)).splitlines()[-1] == (
        "epoch 7.5  kept: gain +7.8 % (+4.8 to +11 %), asked +1.2 %, 40 steps; "
        "loss 0.412 with, 0.447 without: +0.035 nats, +0.021 nats predicted; "
        "cost +936 parameters, +12 % FLOPs; outputs moved by 1.2e-07"
    )


def test_an_edit_rolled_back_says_what_was_asked_for():
    line = shown(APPLIED, verdict(False))
    assert "rolled back: gain -2.9 % (-5.9 to +0.09 %), asked +1.2 %, 40 steps; " in line


def test_a_gain_without_an_interval_is_told_without_one():
    alone = replace(verdict(True), low=0.078, high=0.078)
    assert "kept: gain +7.8 %, asked +1.2 %" in shown(APPLIED, alone)


def test_an_edit_made_untried_gives_the_reason_and_the_cost():
    untried = replace(verdict(True), relative_gain=math.nan, needed=math.nan, reason="not tried", trial_steps=0)
    assert shown(STARTED, APPLIED, untried).splitlines()[-1] == (
        "epoch 7.5  kept: not tried; cost +936 parameters, +12 % FLOPs; outputs moved by 1.2e-07"
    )


def test_a_verdict_without_an_edit_gives_the_reason_alone():
    refused = replace(verdict(False), reason="it feeds a frozen layer", position=math.nan)
    assert shown(refused) == "epoch  7  rolled back: widen stages.0.0.conv1 8 -> 12 channels: it feeds a frozen layer\n"


@pytest.mark.parametrize("width", [40, 80, 120])
def test_at_a_terminal_an_event_is_a_few_indented_lines_that_fit(width):
    lines = without_colours(shown(PROPOSAL, APPLIED, verdict(False), terminal=True, width=width)).splitlines()
    heads = [line for line in lines if not line.startswith(" " * 10)]
    assert [head[:14].strip() for head in heads] == ["epoch  6  try:", "epoch 7.5  rol"]
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
        "5 events kept, 1 rolled back",
        "97.8 %",
        "4,810 -> 12,345",
        "1.25 -> 2.5 MFLOP",
        "3 min 20 s",
        "534 MiB",
    ):
        assert part in out
    assert "epoch 28, chosen on validation" in out
    assert "morphogenesis" not in out


def test_the_closing_block_says_what_morphogenesis_took_and_both_sizes_of_a_training_step():
    told = replace(
        FINISHED,
        flops_by_purpose={"training": 95, "discarded": 4, "surgery": 1},
        seconds_by_purpose={"training": 180.0, "discarded": 20.0},
        predicted_bytes=41 * 2**20,
        measured_bytes=45 * 2**20,
    )
    lines = shown(told).splitlines()
    assert "  compute         2.08 TFLOP in all, trials included, morphogenesis 5.0 %" in lines
    assert "  time            3 min 20 s, morphogenesis 10.0 %" in lines
    assert "  training step   41 MiB predicted, memory grew by 45 MiB" in lines


GROWING = {"train": {"epochs": 9}, "morphogenesis": {"max_events": 8, "first_epoch": 2.0, "last_epoch": 4.0}}


def stages(*events, config=GROWING):
    lines = shown(replace(STARTED, config=config), *events).splitlines()
    return [line for line in lines if "edits" in line]


def test_a_new_stage_is_told_in_one_line():
    assert stages(*(epoch(number) for number in range(1, 10))) == [
        "epoch  0  base training: no edits before epoch 2",
        "epoch  2  morphogenesis: edits are tried until epoch 4",
        "epoch  5  fine-tuning: no edits after epoch 4",
    ]


def test_a_trial_that_outlasts_the_last_epoch_is_over_before_fine_tuning_begins():
    late = replace(verdict(True), position=5.25)
    told = stages(epoch(3), epoch(4), epoch(5, "control"), epoch(5, "trial"), APPLIED, late, epoch(6))
    assert told[-1] == "epoch 5.25  fine-tuning: no edits after epoch 4"


def test_no_stage_is_told_of_a_run_that_keeps_its_network():
    assert stages(epoch(1), epoch(9), config={"morphogenesis": GROWING["morphogenesis"] | {"max_events": 0}}) == []


def test_a_resumed_run_knows_its_stage_from_its_settings():
    file = io.StringIO()
    display = Display(Console(file=file), GROWING)
    for event in (RunResumed(epoch=3, path="x"), epoch(4)):
        display.send(event)
    told = file.getvalue().splitlines()
    assert told[1] == "epoch  3  morphogenesis: edits are tried until epoch 4"
    assert told[2].startswith("epoch  4/9  train")


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
