"""What all commands share on the command line: one-sentence errors, whole words only, numbers that are numbers."""

from __future__ import annotations

import argparse
import difflib
import math
import re
import sys
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """An ``argparse`` parser that takes no abbreviations and says what is wrong in one sentence, with exit code 2."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(allow_abbrev=False, **keywords)
        self.set_defaults(parser=self)

    def error(self, message: str) -> NoReturn:
        """Ends the process."""
        where_first = re.sub(r"^argument (\S+)(?:/\S+)*: ", r"\1: ", message)
        sentence = where_first if where_first.endswith("?") else f"{where_first}."
        self.exit(2, f"{self.prog}: {sentence} See `{self.prog} --help`.\n")

    def refuse_unknown(self, arguments: list[str]) -> None:
        """Ends the process if there are arguments left that no option took."""
        if arguments:
            known = re.findall(r"--[a-z][a-z-]*", self.format_help())
            near = difflib.get_close_matches(arguments[0].partition("=")[0], known, n=1)
            self.error(f"unknown argument {arguments[0]}" + (f": did you mean {near[0]}?" if near else ""))


def whole_number(text: str) -> int:
    """Reads an integer."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"found {text!r}, needed a whole number") from None


def number(text: str) -> float:
    """Reads a finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"found {text!r}, needed a finite number")
    return value


def warn(text: str) -> None:
    """Says something on standard error that does not end the command."""
    print(f"neuroexapt: {text}", file=sys.stderr)
