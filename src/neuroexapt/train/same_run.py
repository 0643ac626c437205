"""Whether a checkpoint belongs to the run that wants to go on from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neuroexapt.config import GrowConfig, to_json
from neuroexapt.errors import CheckpointError

MAY_DIFFER = frozenset({"train.max_seconds"})  # a run that ran out of time may get more


def check_same_run(path: Path, state: Mapping[str, Any], config: GrowConfig, fingerprint: str) -> None:
    """Compares data and settings with those of a checkpoint; a setting that it does not know has its default there.

    Raises:
        CheckpointError: They differ; the message lists the settings.
    """
    if state["data"] != fingerprint:
        raise CheckpointError(
            f"{path}: the data have changed since the run began: found fingerprint {fingerprint}, needed "
            f"{state['data']}. Restore them, or start a new run."
        )
    own, defaults = _flat(to_json(config)), _flat(to_json(GrowConfig()))
    saved = {key: defaults[key] for key in own if key in defaults} | _flat(state["config"])
    if different := sorted(k for k in saved.keys() | own.keys() if saved.get(k) != own.get(k) and k not in MAY_DIFFER):
        raise CheckpointError(
            f"{path}: made with other settings ({', '.join(different)}). Resume with the run's own config.json."
        )


def _flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested settings by dotted name."""
    flat: dict[str, Any] = {}
    for key, value in record.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return flat
