"""A row as it is kept: what the tables need, reasons grouped, no list of everything that went well."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

_MODULE_PATH = re.compile(r"\b(?!aten\.)[A-Za-z_]\w*(?:\.\w+)*\.\d+(?:\.\w+)*(?:\[\d+\])?(?:\.\d+)?")
_PREFIX = re.compile(r"^\S+: cannot widen from \d+ to \d+ units: ")
_SUFFIX = re.compile(r"\.? Choose another [^.]*`graph\.groups`.*$")
_NUMBER = re.compile(r"(?<![A-Za-z])\d+(?:\.\d+)?(?:e[+-]\d+)?")
MAX_LENGTH = 170


def general(reason: str) -> str:
    """Returns a reason without the names and numbers of one model, so that the same ones fall together."""
    text = _SUFFIX.sub("", _PREFIX.sub("", reason))
    text = _NUMBER.sub("#", _MODULE_PATH.sub("…", text))
    return re.sub(r"(?:#, )+#", "#, …", text)[:MAX_LENGTH]


def compact(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the row to keep."""
    kept = dict(row)
    if "pinned" in row.get("groups", {}):
        groups = dict(row["groups"])
        for key in ("pinned", "not_growing"):
            groups[key] = _grouped(groups[key].items())
        groups["layers_not_growing"] = groups["layers_not_growing"][:5]
        kept["groups"] = groups
    for stage in ("axes", "kinds"):
        if "outcomes" in row.get(stage, {}):
            kept[stage] = _outcomes(row[stage])
    return kept


def _grouped(reasons: Iterable[tuple[str, str]]) -> list[list[Any]]:
    """Returns ``[reason, how often, first example]``, the commonest first."""
    examples: dict[str, list[str]] = defaultdict(list)
    for name, reason in reasons:
        examples[general(reason)].append(name)
    return sorted(([why, len(names), names[0]] for why, names in examples.items()), key=lambda item: -item[1])


def _outcomes(stage: Mapping[str, Any]) -> dict[str, Any]:
    outcomes = stage["outcomes"]
    exact = [o for o in outcomes if o["outcome"] == "exact"]
    kept = {key: value for key, value in stage.items() if key != "outcomes"}
    kept["counts"] = dict(Counter(o["outcome"] for o in outcomes))
    kept["num_resizable"] = sum(o["resizable"] for o in outcomes)
    kept["num_in_train_mode"] = sum(o["in_train_mode"] for o in exact)
    kept["worst_change"] = max((max(o["change"], o["second_change"]) for o in exact), default=0.0)
    kept["median_seconds"] = sorted(o["seconds"] for o in exact)[len(exact) // 2] if exact else 0.0
    kept["refused"] = _grouped((o["axis"], o["reason"]) for o in outcomes if o["outcome"] == "refused")
    kept["unclean"] = [o for o in outcomes if o["outcome"] in ("wrong", "fault", "taken back")]
    return kept
