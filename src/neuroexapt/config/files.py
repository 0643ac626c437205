"""Settings from files and from ``--set key=value``: read, put together and checked, with errors that teach."""

from __future__ import annotations

import copy
import difflib
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from neuroexapt.config.problems import describe
from neuroexapt.config.yaml_values import read_yaml, yaml_problem
from neuroexapt.errors import ConfigError

T = TypeVar("T")

MAX_CONFIG_BYTES = 1 << 20


def to_json(config: Any) -> dict[str, Any]:
    """Returns a config as a JSON-ready dictionary."""
    result: dict[str, Any] = TypeAdapter(type(config)).dump_python(config, mode="json")
    return result


def from_json(cls: type[T], record: Mapping[str, Any], *, where: str = "") -> T:
    """Builds a config from a dictionary; ``where`` it came from is said first in an error.

    Raises:
        ConfigError: Lists every unknown key (with the nearest known one) and every bad value at once.
    """
    problems = _unknown_keys(cls, record, "")
    if not problems:
        try:
            return TypeAdapter(cls).validate_json(json.dumps(dict(record), default=str))
        except ValidationError as error:
            problems = [describe(item) for item in error.errors()]
    sentence = "; ".join(problems)
    raise ConfigError((f"{where}: " if where else "") + sentence + ("" if sentence.endswith("?") else "."))


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
        ConfigError: An assignment has no ``=``, or goes through something that is not a mapping.
    """
    result = copy.deepcopy(dict(record))
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        if not separator or not key.strip():
            raise ConfigError(f"--set: found {assignment!r}, needed key=value, for example train.epochs=10.")
        try:
            value = read_yaml(text)
        except yaml.YAMLError as error:
            raise ConfigError(
                f"--set: {key}: found {text!r}, which is no YAML value ({yaml_problem(error)}). Correct or quote it."
            ) from error
        put(result, key.strip(), value)
    return result


def put(record: dict[str, Any], key: str, value: Any) -> None:
    """Sets the entry that a dotted key names, and makes the sections above it where they are missing.

    Raises:
        ConfigError: A part of the key but the last holds a value.
    """
    *parents, last = key.split(".")
    node = record
    for name in parents:
        child = node.setdefault(name, {})
        if not isinstance(child, dict):
            raise ConfigError(f"{key}: found {name} = {child!r}, which is a value, needed a section. Correct the key.")
        node = child
    node[last] = value


def _read_mapping(path: Path) -> dict[str, Any]:
    kind = {".toml": "TOML", ".json": "JSON"}.get(path.suffix.lower(), "YAML")
    try:
        record = _parse(_read_text(path), kind)
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: found bytes that are not UTF-8 (at byte {error.start}), needed a text file. Save it as UTF-8."
        ) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # TOML and JSON errors are ValueErrors
        why = yaml_problem(error) if isinstance(error, yaml.YAMLError) else str(error)
        raise ConfigError(f"{path}: found no valid {kind}: {why}. Correct the file.") from error
    if record is None:
        return {}
    if not isinstance(record, dict):
        raise ConfigError(f"{path}: found a {type(record).__name__}, needed key: value pairs. Correct the file.")
    return record


def _read_text(path: Path) -> str:
    advice = "Give a YAML, TOML or JSON file."
    try:
        if not path.is_file():
            found = "a folder" if path.is_dir() else "no such file"
            raise ConfigError(f"{path}: found {found}, needed settings. {advice}")
        if (size := path.stat().st_size) > MAX_CONFIG_BYTES:
            raise ConfigError(f"{path}: found {size:,} bytes, needed at most {MAX_CONFIG_BYTES:,}. {advice}")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}. {advice}") from error


def _parse(text: str, kind: str) -> Any:
    if kind == "TOML":
        return tomllib.loads(text)
    return json.loads(text) if kind == "JSON" else read_yaml(text)


def _unknown_keys(cls: Any, record: Mapping[str, Any], prefix: str) -> list[str]:
    hints = get_type_hints(cls)
    known = [f.name for f in fields(cls)]
    problems = []
    for key, value in record.items():
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"known are {', '.join(known)}"
            problems.append(f"unknown key {prefix}{key}: {hint}")
        elif is_dataclass(hints[key]) and isinstance(value, Mapping):
            problems += _unknown_keys(hints[key], value, f"{prefix}{key}.")
    return problems
