"""Randomness that can be saved, restored and split into independent streams.

``random_state`` is for a checkpoint: torch's own generators, as text. ``stream`` is for everything else: who shuffles
an epoch or initialises a layer asks for a generator of its own, so that no purpose disturbs another and a resumed run
needs no replay.
"""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Mapping

import torch

from neuroexapt.errors import CheckpointError, InputError

logger = logging.getLogger(__name__)


def random_state() -> dict[str, str]:
    """Returns the state of torch's CPU generator and, where CUDA is in use, of each CUDA generator, as base64."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        states |= {f"cuda:{index}": state for index, state in enumerate(torch.cuda.get_rng_state_all())}
    return {name: base64.b64encode(bytes(state.tolist())).decode("ascii") for name, state in states.items()}


def set_random_state(state: Mapping[str, str]) -> None:
    """Puts torch's generators back into a state that ``random_state`` returned; all are checked before one is set.

    The state of a CUDA device that this machine lacks is passed over with a logged warning.

    Raises:
        CheckpointError: An entry is no generator's state; no generator has been changed.
    """
    if "cpu" not in state:
        raise CheckpointError(f"random state: found {sorted(state)}, needed 'cpu' among them. Use another checkpoint.")
    decoded = {name: _decode(name, text) for name, text in state.items()}
    num_cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    present = {"cpu", *(f"cuda:{index}" for index in range(num_cuda))}
    for name in sorted(decoded.keys() & present):
        _check(name, decoded[name])
    for name, raw in decoded.items():
        if name == "cpu":
            torch.set_rng_state(raw)
        elif name in present:
            torch.cuda.set_rng_state(raw, name)
        else:
            logger.warning("random state: %s is not on this machine; its state is not restored.", name)


def stream(seed: int, *keys: int | str) -> torch.Generator:
    """Returns a CPU generator of its own for a purpose, the same on every machine and in every version.

    Its seed is a 64-bit BLAKE2b hash of ``seed`` and ``keys``, in order and with their types: ``stream(0, 1)``,
    ``stream(0, "1")`` and ``stream(1, 0)`` differ. torch's CPU generator starts from the low 32 bits of a seed, so
    among 1,000 streams two are equal with probability 1e-4.

    Raises:
        InputError: A key is neither an integer nor text.
    """
    digest = hashlib.blake2b(digest_size=8)
    for key in (seed, *keys):
        if not isinstance(key, (int, str)):
            raise InputError(f"stream: found the key {key!r} ({type(key).__name__}), needed an integer or text.")
        raw = str(key).encode() if isinstance(key, str) else str(int(key)).encode()
        digest.update(f"{'s' if isinstance(key, str) else 'i'}{len(raw)}:".encode() + raw)
    return torch.Generator().manual_seed(int.from_bytes(digest.digest(), "little"))


def _decode(name: str, text: str) -> torch.Tensor:
    try:
        raw = bytearray(base64.b64decode(text, validate=True))
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"random state: {name}: found no base64 ({error}). Use another checkpoint.") from error
    if not raw:
        raise CheckpointError(f"random state: {name}: found 0 bytes, needed a state. Use another checkpoint.")
    return torch.frombuffer(raw, dtype=torch.uint8)


def _check(name: str, raw: torch.Tensor) -> None:
    try:
        torch.Generator(device=name).set_state(raw)
    except (RuntimeError, TypeError) as error:
        found = f"found {raw.numel()} bytes that are no state of this generator"
        raise CheckpointError(f"random state: {name}: {found} ({error}). Use another checkpoint.") from error
