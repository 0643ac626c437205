"""Laws of one edit, as assertions on the facts of an experiment."""

from __future__ import annotations

import torch

from contracts.experiment import Experiment
from contracts.networks import batch

EXACT = 1e-10  # float64, relative: summation order is all that may differ


def assert_function_preserved(edit: Experiment) -> None:
    """In every mode that is not declared, on other data than the surgeon's."""
    before, after = edit.outputs
    for mode in set(before) - edit.patch.declared:
        assert (after[mode] - before[mode]).abs().max() <= EXACT * before[mode].abs().max()
    assert edit.patch.output_change <= EXACT or edit.patch.declared
    assert edit.patch.verified_in_train_mode or "train" in edit.patch.declared


def assert_reverted(edit: Experiment) -> None:
    """Bytes of model and optimizer, and the lineage."""
    assert edit.is_reverted


def assert_replayed(edit: Experiment) -> None:
    """From JSON, on the seed model: keys, shapes and outputs."""
    assert edit.parsed == edit.mutation
    (keys, seen), (keys_again, seen_again) = edit.replayed
    assert keys == keys_again
    assert torch.equal(seen, seen_again)


def assert_new_entries_learn(edit: Experiment) -> None:
    """A gradient somewhere in what is new, within two steps."""
    for name, mask in edit.masks.items():
        if mask is not None and not mask.any():
            continue  # entries only went
        new = edit.reached[name] if mask is None else edit.reached[name][mask]
        assert new.any(), f"{name}: no new entry ever got a gradient"


def assert_deltas_recounted(edit: Experiment) -> None:
    """Of parameters and of FLOPs a sample."""
    before, after = edit.counts
    assert edit.patch.parameter_delta == after[0] - before[0]
    assert edit.patch.flop_delta * len(batch()) == after[1] - before[1]
