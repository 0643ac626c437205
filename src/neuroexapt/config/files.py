"""Reading settings from files and from ``--set key=value``, with errors that teach."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from neuroexapt.errors import ConfigError

T = TypeVar("T")

MAX_CONFIG_BYTES = 1 << 20


def to_json(config: Any) -> dict[str, Any]:
    """Returns a config as a JSON-ready dictionary."""
    result: dict[str, Any] = TypeAdapter(type(config)).dump_python(config, mode="json")
    return result


def from_json(cls: type[T], record: Mapping[str, Any], *, where: str = "config") -> T:
    """Builds a config from a dictionary.

    Raises:
        ConfigError: Lists every unknown key (with the nearest known one) and every bad value at once.
    """
    problems = _unknown_keys(cls, record, "")
    if not problems:
        try:
            return TypeAdapter(cls).validate_json(json.dumps(dict(record), default=str))
        except ValidationError as error:
            problems = [_describe(item) for item in error.errors()]
    raise ConfigError(f"{where}: " + "; ".join(problems))


def load_config(cls: type[T], path: str | Path) -> dict[str, Any]:
    """Reads a YAML, TOML or JSON file into a dictionary and checks it against ``cls``.

    Raises:
        ConfigError: The file is missing, too large, not a mapping, or does not fit ``cls``.
    """
    path = Path(path)
    record = _read_mapping(path)
    from_json(cls, record, where=str(path))
    return record


def apply_overrides(record: Mapping[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """Returns ``record`` with every ``a.b=value`` put in; values are read as YAML.

    Raises:
        ConfigError: An assignment has no ``=`` or goes through something that is not a mapping.
    """
    result: dict[str, Any] = json.loads(json.dumps(record))
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        if not separator or not key.strip():
            raise ConfigError(f"--set: found {assignment!r}, needed key=value, for example train.epochs=10.")
        *parents, last = key.strip().split(".")
        node = result
        for name in parents:
            child = node.setdefault(name, {})
            if not isinstance(child, dict):
                raise ConfigError(f"--set: {key}: {name} holds a value, not a section.")
            node = child
        try:
            node[last] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set: {key}: {text!r} is not a value: {error}") from error
    return result


def _read_mapping(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(f"{path}: no such file. Give a YAML, TOML or JSON file.")
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise ConfigError(f"{path}: {path.stat().st_size} bytes, more than the {MAX_CONFIG_BYTES} a config may have.")
    try:
        text = path.read_text(encoding="utf-8")
        record = tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as {path.suffix or 'YAML'}: {error}") from error
    if record is None:
        return {}
    if not isinstance(record, dict):
        raise ConfigError(f"{path}: found a {type(record).__name__}, needed key: value pairs.")
    return record


def _unknown_keys(cls: Any, record: Mapping[str, Any], prefix: str) -> list[str]:
    hints = get_type_hints(cls)
    known = [f.name for f in fields(cls)]
    problems = []
    for key, value in record.items():
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"known are {', '.join(known)}."
            problems.append(f"unknown key {prefix}{key}: {hint}")
        elif is_dataclass(hints[key]) and isinstance(value, Mapping):
            problems += _unknown_keys(hints[key], value, f"{prefix}{key}.")
    return problems


def _describe(item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"])
    return f"{where}: found {item['input']!r}; {item['msg'][0].lower()}{item['msg'][1:]}"
