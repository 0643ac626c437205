"""One value that does not fit, in one clause: which key, what was found, what was needed."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

MAX_SHOWN = 80  # characters of a value

# pydantic's error type -> what was needed, from the error's context
_NEEDED: dict[str, Callable[[dict[str, Any]], str]] = {
    "greater_than": lambda c: f"a number greater than {_number(c['gt'])}",
    "greater_than_equal": lambda c: f"a number of at least {_number(c['ge'])}",
    "less_than": lambda c: f"a number less than {_number(c['lt'])}",
    "less_than_equal": lambda c: f"a number of at most {_number(c['le'])}",
    "finite_number": lambda c: "a finite number",
    "int_type": lambda c: "a whole number",
    "int_parsing": lambda c: "a whole number",
    "int_from_float": lambda c: "a whole number",
    "int_parsing_size": lambda c: "a whole number of fewer digits",
    "float_type": lambda c: "a number",
    "float_parsing": lambda c: "a number",
    "string_type": lambda c: "text (quote a number that is meant as text)",
    "bool_type": lambda c: "true or false",
    "literal_error": lambda c: str(c["expected"]),
    "tuple_type": lambda c: "a list, such as [first, second]",
    "list_type": lambda c: "a list, such as [first, second]",
    "too_short": lambda c: f"a list of at least {c['min_length']}",
    "dict_type": lambda c: "key: value pairs",
    "dataclass_type": lambda c: "a section of key: value pairs",
}


def describe(item: Any) -> str:
    """Returns one entry of pydantic's ``ValidationError.errors()`` in the library's words."""
    where = ".".join(str(part) for part in item["loc"])
    context = item.get("ctx", {})
    if item["type"] == "value_error":
        return f"{where}: {context['error']}" if where else str(context["error"])
    needed = _NEEDED[item["type"]](context) if item["type"] in _NEEDED else item["msg"]
    return f"{where}: found {_shown(item['input'])}, needed {needed}{_hint(item, context)}"


def _number(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:g}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def _hint(item: Any, context: dict[str, Any]) -> str:
    if item["type"] != "literal_error" or not isinstance(item["input"], str):
        return ""
    choices = [text.strip("'") for text in str(context["expected"]).replace(" or ", ", ").split(", ")]
    near = difflib.get_close_matches(item["input"], choices, n=1)
    return f": did you mean {near[0]!r}?" if near else ""
