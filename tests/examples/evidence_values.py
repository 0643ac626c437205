"""Writes the table of values into docs/evidence.md: ``python tests/examples/evidence_values.py``."""

from __future__ import annotations

import re
from pathlib import Path

from neuroexapt.analysis.estimators import ESTIMATORS

PAGE = Path(__file__).parents[2] / "docs" / "evidence.md"
_BLOCK = re.compile(r"(<!-- values: [^\n]*-->\n).*?(<!-- end -->)", re.DOTALL)


def with_values(page: str) -> str:
    """Returns the page with the present table."""
    rows = [
        f"| `{name}` | {meaning.replace('|', '&#124;')} | `{estimator.name}` |"
        for estimator in ESTIMATORS.values()
        for name, meaning in estimator.values.items()
    ]
    table = "\n".join(["| value | meaning | estimator |", "|---|---|---|", *rows])
    return _BLOCK.sub(lambda found: f"{found[1]}{table}\n{found[2]}", page)


if __name__ == "__main__":
    PAGE.write_text(with_values(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
