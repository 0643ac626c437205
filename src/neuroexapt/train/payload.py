"""A checkpoint's content, and the files that hold it: safetensors for tensors, JSON for all the rest, no pickle.

The writer accepts what a state dict really holds (views, shared storage, empty and 0-dim tensors, any dtype) and
refuses what the reader would refuse. Shared storage is written once per name: who tied the weights ties them again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from neuroexapt.errors import CheckpointError
from neuroexapt.train.manifest import MANIFEST_NAME, STATE_NAME, STEM_PATTERN, render_manifest, tensor_file_name

MAX_STATE_BYTES = 64 << 20
MAX_STATE_DEPTH = 100
MAX_HEADER_BYTES = 16 << 20  # names, dtypes and shapes of one file; about 100,000 tensors

DTYPES = frozenset(
    {torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.bool}
    | {torch.int64, torch.int32, torch.int16, torch.int8, torch.uint64, torch.uint32, torch.uint16, torch.uint8}
    | {torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz}
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Payload:
    """Named tensors and a JSON state.

    Attributes:
        tensors: File stem (``a-z 0-9 _ -``) to tensor name to tensor, for example
            ``{"model": {...}, "optimizer": {...}}``.
        state: JSON: string keys, lists, strings, numbers, booleans, None. Tuples come back as lists.
    """

    tensors: Mapping[str, Mapping[str, Tensor]]
    state: dict[str, Any]

    def __post_init__(self) -> None:
        for stem in self.tensors:
            if not STEM_PATTERN.fullmatch(stem):
                raise CheckpointError(f"payload: found the stem {stem!r}, needed 1 to 64 of a-z 0-9 _ -. Rename it.")
            for name, tensor in self.tensors[stem].items():
                _check_tensor(name, tensor, f"{stem}: {name!r}")


def tensor_bytes(payload: Payload) -> int:
    """Returns about how many bytes the tensor files take, headers included."""
    return sum(
        tensor.numel() * tensor.element_size() + 128 + 4 * len(name)
        for group in payload.tensors.values()
        for name, tensor in group.items()
    )


def encode_state(state: dict[str, Any]) -> bytes:
    """Returns the state as JSON bytes.

    Raises:
        CheckpointError: Names the entry that is not JSON or too deep, or says that the whole is too large.
    """
    if (problem := _state_problem(state, 0)) is not None:
        raise CheckpointError(f"state{problem}. Save tensors under `tensors`, and other values as text or numbers.")
    try:
        raw = json.dumps(state, separators=(",", ":")).encode()
    except ValueError as error:
        raise CheckpointError(f"state: cannot be written as JSON: {error}. Save large integers as text.") from error
    if len(raw) > MAX_STATE_BYTES:
        raise CheckpointError(f"state: found {len(raw):,} bytes, needed at most {MAX_STATE_BYTES:,}. Shorten it.")
    return raw


def write_files(directory: Path, payload: Payload, state: bytes) -> None:
    """Fills an empty directory, the manifest last; every file and the directory are on the disk on return.

    Memory: one copy of each tensor that is a view, shares storage with an earlier one, or lives on an accelerator.
    """
    _write_synced(directory / STATE_NAME, state)
    for stem, group in payload.tensors.items():
        path = directory / tensor_file_name(stem)
        save_file(_storable(group), path)
        path.chmod((directory / STATE_NAME).stat().st_mode)  # safetensors leaves 0600, whatever the umask
        _check_header(path)
        sync(path)
    _write_synced(directory / MANIFEST_NAME, render_manifest(directory))
    sync(directory)


def read_files(directory: Path, names: Iterable[str], device: str | torch.device) -> Payload:
    """Parses the verified files ``names``; tensors own their memory, so the files may go away afterwards.

    Raises:
        CheckpointError: Names the file that has the right digest and yet is not what it claims to be.
    """
    paths = [directory / name for name in sorted(names) if name != STATE_NAME]
    try:
        state = _read_state(directory / STATE_NAME)
        return Payload(tensors={path.stem: _read_tensors(path, device) for path in paths}, state=state)
    except OSError as error:
        raise CheckpointError(f"{directory}: cannot be read: {error}. Check that nothing else writes there.") from error


def sync(path: Path) -> None:
    """Forces a file, or a directory's list of names, onto the disk."""
    if os.name == "nt" and path.is_dir():  # Windows has no handle for this
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_synced(path: Path, raw: bytes) -> None:
    with path.open("xb") as file:
        file.write(raw)
    sync(path)


def _storable(group: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns contiguous CPU tensors, no two of which share storage, as safetensors needs them."""
    result: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in group.items():
        dense = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
        if (storage := dense.untyped_storage().data_ptr()) in storages:
            dense = dense.clone(memory_format=torch.contiguous_format)
        storages.add(storage)
        result[name] = dense
    return result


def _check_tensor(name: Any, tensor: Any, where: str) -> None:
    if not isinstance(name, str) or name == "__metadata__" or not name.isprintable():
        raise CheckpointError(f"{where}: cannot be a tensor's name, needed printable text. Rename it.")
    if not isinstance(tensor, Tensor):
        raise CheckpointError(f"{where}: found a {type(tensor).__name__}, needed a tensor. Put it into `state`.")
    if tensor.layout != torch.strided or tensor.is_meta:
        kind = "meta" if tensor.is_meta else tensor.layout
        raise CheckpointError(f"{where}: found a {kind} tensor, needed a dense one with data. Convert it first.")
    if tensor.dtype not in DTYPES:
        raise CheckpointError(f"{where}: found dtype {tensor.dtype}, which safetensors cannot hold. Convert it first.")


def _check_header(path: Path) -> None:
    with path.open("rb") as file:
        found = int.from_bytes(file.read(8), "little")
    if found > MAX_HEADER_BYTES:
        raise CheckpointError(f"{path}: found a header of {found:,} bytes, needed at most {MAX_HEADER_BYTES:,}.")


def _read_tensors(path: Path, device: str | torch.device) -> dict[str, Tensor]:
    _check_header(path)
    try:
        mapped = load_file(path)
    except (SafetensorError, RuntimeError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise CheckpointError(f"{path}: found no safetensors ({error}). Use another checkpoint.") from error
    for name, tensor in mapped.items():
        _check_tensor(name, tensor, f"{path}: {name!r}")
    return {name: mapped[name].to(device, copy=True) for name in sorted(mapped)}


def _read_state(path: Path) -> dict[str, Any]:
    if (size := path.stat().st_size) > MAX_STATE_BYTES:
        raise CheckpointError(f"{path}: found {size:,} bytes, needed at most {MAX_STATE_BYTES:,}.")
    try:
        state = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: found no readable JSON ({error}). Use another checkpoint.") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: found a {type(state).__name__}, needed a mapping. Use another checkpoint.")
    if (problem := _state_problem(state, 0)) is not None:
        raise CheckpointError(f"{path}: state{problem}. Use another checkpoint.")
    return state


def _state_problem(value: Any, depth: int) -> str | None:
    """Returns where the value is not JSON and why, or None; the path is only spelled out on failure."""
    if value is None or isinstance(value, (str, int, float)):
        return None
    if not isinstance(value, (dict, list, tuple)):
        return f": found a {type(value).__name__}, needed a mapping, list, text, number, boolean or None"
    if depth >= MAX_STATE_DEPTH:
        return f": nested deeper than {MAX_STATE_DEPTH} levels"
    for key, child in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(value, dict) and not isinstance(key, str):
            return f": found the key {key!r}, needed text"
        if (problem := _state_problem(child, depth + 1)) is not None:
            return f".{key}{problem}"
    return None
