"""``neuroexapt``: the parser, and what an error becomes.

Exit codes: 0 done, 2 bad input (nothing was written), 3 stopped by a budget or a fault with the run saved,
130 interrupted with the run saved.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

from neuroexapt import __version__
from neuroexapt.cli import grow, inspect, report
from neuroexapt.cli.arguments import Parser, warn
from neuroexapt.errors import InputError, Interrupted, NeuroExaptError

DONE, BAD_INPUT, STOPPED, INTERRUPTED = 0, 2, 3, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    parser = build_parser()
    options, unknown = parser.parse_known_args(arguments)
    options.parser.refuse_unknown(unknown)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        code = int(options.run(options))
        sys.stdout.flush()
        return code
    except Interrupted as error:
        return _fail(error, INTERRUPTED)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except InputError as error:
        return _fail(error, BAD_INPUT)
    except NeuroExaptError as error:
        return _fail(error, STOPPED)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the interpreter's own last flush
        return DONE


def build_parser() -> Parser:
    """Returns the parser with all commands."""
    parser = Parser(
        prog="neuroexapt",
        description="Change a network's architecture while it trains, and lose nothing.",
        epilog="Exit codes: 0 done; 2 bad input, nothing written; 3 stopped by a budget or a fault, the run saved; "
        "130 interrupted, the run saved.",
    )
    parser.add_argument("--version", action="version", version=f"neuroexapt {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in (grow, inspect, report):
        command.add_parser(commands)
    return parser


def _fail(error: object, code: int) -> int:
    warn(str(error))
    return code


if __name__ == "__main__":
    sys.exit(main())
