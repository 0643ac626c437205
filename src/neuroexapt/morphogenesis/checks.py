"""What the settings name must be there: kinds, triggers, policy, score, data, experience."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from pathlib import Path

import torch.distributed as dist

from neuroexapt.analysis.scores import SCORES
from neuroexapt.config import MorphogenesisConfig
from neuroexapt.errors import ConfigError, InputError
from neuroexapt.morphogenesis.experience import Experience
from neuroexapt.morphogenesis.policies import POLICIES
from neuroexapt.morphogenesis.triggers import TRIGGERS
from neuroexapt.surgery import MUTATIONS

MAX_EXPERIENCE_BYTES = 1 << 20


def check_config(config: MorphogenesisConfig, *, has_evidence: bool) -> None:
    """Checks every name in the settings, that what a policy or trigger reads is given, and that one process trains.

    Raises:
        ConfigError: Something is unknown or missing, or several processes are at work.
    """
    _check_processes(config)
    _known("kinds", config.kinds, MUTATIONS)
    _known("sequence", config.sequence, config.kinds)
    _known("triggers", config.triggers, TRIGGERS)
    _known("policy", [config.policy], POLICIES)
    _known("score", [config.score], SCORES)
    if has_evidence or not config.max_events:
        return
    needing = {
        'policy: "greedy"': config.policy == "greedy",
        'triggers: "evidence"': "evidence" in config.triggers,
        "need_threshold": config.need_threshold > 0,
    }
    for what, is_set in needing.items():
        if is_set:
            raise ConfigError(
                f"morphogenesis.{what} reads evidence of the training data, and there are none. Pass "
                "evidence_batches, or change the setting."
            )


def read_experience(config: MorphogenesisConfig) -> Experience:
    """Returns what edits gained in earlier runs, or nothing but the prior.

    Raises:
        ConfigError: The file cannot be read or is none.
    """
    if config.experience is None:
        return Experience()
    path = Path(config.experience)
    try:
        if path.stat().st_size > MAX_EXPERIENCE_BYTES:
            raise ValueError(f"more than {MAX_EXPERIENCE_BYTES:,} bytes")
        return Experience.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, InputError) as error:
        raise ConfigError(
            f"morphogenesis.experience: {path}: found no file of experience ({type(error).__name__}: {error}), needed "
            "experience.json of an earlier run. Correct the path, or leave the setting out."
        ) from error


def _known(key: str, names: Iterable[str], table: Iterable[str]) -> None:
    known = list(table)
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else "Correct the name."
            raise ConfigError(f"morphogenesis.{key}: found {name!r}, needed one of {', '.join(known)}. {hint}")


def _check_processes(config: MorphogenesisConfig) -> None:
    """Refuses to change a model that several processes train."""
    several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    if several and config.max_events:
        raise ConfigError(
            f"morphogenesis: found {dist.get_world_size()} processes of torch.distributed, needed one: each would "
            "decide by its own losses and clock, and their models would no longer be the same. Grow in one process and "
            "replay the lineage in all, or set max_events 0."
        )
