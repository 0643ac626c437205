"""The rows of one suite: JSON lines, one run a line. What stands there is not run again."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "results" / "growth"


class Store:
    """Rows of one suite, in the order in which they were measured."""

    def __init__(self, suite: str, folder: Path = FOLDER) -> None:
        self.path = folder / f"{suite}.jsonl"
        text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]

    def find(self, arm: str, seed: int) -> dict[str, Any] | None:
        """Returns the row of an arm and seed, if it was run."""
        return next((row for row in self.rows if (row["arm"], row["seed"]) == (arm, seed)), None)

    def of(self, arm: str) -> list[dict[str, Any]]:
        """Returns the rows of one arm, by seed."""
        return sorted((row for row in self.rows if row["arm"] == arm), key=lambda row: row["seed"])

    def add(self, row: Mapping[str, Any]) -> None:
        """Appends a row."""
        self.rows.append(dict(row))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as out:
            out.write(json.dumps(row) + "\n")

    def drop(self, arms: Collection[str]) -> None:
        """Forgets the rows of some arms, so that they are measured again."""
        self.rows = [row for row in self.rows if row["arm"] not in arms]
        if self.path.exists():
            self.path.write_text("".join(json.dumps(row) + "\n" for row in self.rows), encoding="utf-8")
