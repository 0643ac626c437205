"""``SUITES``: one file and one line each."""

from growth.suites.table import SUITES

__all__ = ["SUITES"]
