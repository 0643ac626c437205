"""Damaged and hostile checkpoint directories: each is refused, with the file and the reason."""

import json
import os
import random
import shutil

import pytest
import torch

from neuroexapt.errors import CheckpointError
from neuroexapt.train import payload as payload_module
from neuroexapt.train.manifest import MANIFEST_NAME, _canonical, render_manifest
from neuroexapt.train.payload import Payload
from neuroexapt.train.store import read_checkpoint, write_checkpoint

FILES = ("MANIFEST.json", "model.safetensors", "optimizer.safetensors", "state.json")


@pytest.fixture(name="checkpoint")
def fixture_checkpoint(tmp_path):
    generator = torch.Generator().manual_seed(0)
    tensors = {stem: {"w": torch.randn(100, generator=generator)} for stem in ("model", "optimizer")}
    write_checkpoint(tmp_path / "c", Payload(tensors=tensors, state={"epoch": 3, "history": [0.5] * 50}))
    return tmp_path / "c"


def mutations(raw, seed):
    """Yields (what was done, bytes): cut at every 16th byte, and 60 flipped bits, zeroed, repeated or added pieces."""
    for end in range(0, len(raw), 16):
        yield f"cut at {end}", raw[:end]
    chance = random.Random(seed)
    for _ in range(60):
        at = chance.randrange(len(raw))
        bit = 1 << chance.randrange(8)
        yield f"bit {bit} at {at}", raw[:at] + bytes([raw[at] ^ bit]) + raw[at + 1 :]
        size = chance.randrange(1, 64)
        yield f"{size} zeros at {at}", raw[:at] + bytes(len(raw[at : at + size])) + raw[at + size :]
        yield f"{size} repeated at {at}", raw[:at] + raw[at : at + size] + raw[at:]
    yield "a newline more", raw + b"\n"
    yield "all zeros", bytes(len(raw))


@pytest.mark.parametrize("name", FILES)
def test_every_cut_flipped_or_zeroed_byte_is_found(checkpoint, name):
    raw = (checkpoint / name).read_bytes()
    tried = 0
    for what, changed in mutations(raw, name):
        if changed == raw:
            continue
        (checkpoint / name).write_bytes(changed)
        with pytest.raises(CheckpointError, match=r"c/.*(found|missing|match)"):
            pytest.fail(f"{name}: {what}: read as {read_checkpoint(checkpoint)}")
        tried += 1
    assert tried > 150


def test_nothing_is_parsed_before_everything_is_verified(checkpoint, monkeypatch):
    monkeypatch.setattr(payload_module, "load_file", lambda path: pytest.fail("parsed"))
    monkeypatch.setattr(payload_module, "_read_state", lambda path: pytest.fail("parsed"))
    (checkpoint / "optimizer.safetensors").write_bytes(bytes(100))
    with pytest.raises(CheckpointError, match=r"optimizer\.safetensors: found 100 bytes, needed"):
        read_checkpoint(checkpoint)


def test_files_swapped_within_or_between_checkpoints_are_found(checkpoint, tmp_path):
    other = Payload(tensors={"model": {"w": torch.zeros(100)}, "optimizer": {}}, state={})
    write_checkpoint(tmp_path / "other", other)
    shutil.copy(tmp_path / "other" / "model.safetensors", checkpoint)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: found sha256 .*its content changed"):
        read_checkpoint(checkpoint)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(checkpoint, name):
    (checkpoint / name).unlink()
    with pytest.raises(CheckpointError, match=rf"{name}: (missing|no such file)"):
        read_checkpoint(checkpoint)


def test_a_file_too_many_is_named(checkpoint):
    (checkpoint / "extra.pkl").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"extra\.pkl: not listed in MANIFEST\.json"):
        read_checkpoint(checkpoint)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_what_is_no_plain_file_is_refused_and_never_opened(checkpoint, tmp_path, name, kind):
    shutil.move(checkpoint / name, tmp_path / "elsewhere")
    if kind == "link":
        (checkpoint / name).symlink_to(tmp_path / "elsewhere")
    elif kind == "folder":
        (checkpoint / name).mkdir()
    else:
        os.mkfifo(checkpoint / name)
    with pytest.raises(CheckpointError, match=rf"{name}: found a link, folder or device, needed a plain file"):
        read_checkpoint(checkpoint)


def forge(checkpoint, **fields):
    """Writes a manifest with a right digest and the given fields."""
    record = json.loads((checkpoint / MANIFEST_NAME).read_text())
    (checkpoint / MANIFEST_NAME).write_bytes(_canonical({**record, **fields}))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"version": 2}, r"found format version 2, needed 1\. Read it with the version"),
        ({"format": "zip"}, r"found no 'format' 'neuroexapt-checkpoint'"),
        ({"files": {}}, r"lists no state\.json"),
        ({"files": []}, r"lists no state\.json"),
        ({"files": {"state.json": 3}}, r"state\.json: found 3, needed its 'bytes' and 'sha256'"),
        ({"files": {"state.json": {"bytes": True, "sha256": ""}}}, r"needed its 'bytes' and 'sha256'"),
        ({"files": {"state.json": {"bytes": -1, "sha256": ""}}}, r"not listed|found 3"),
    ],
)
def test_a_manifest_with_a_right_digest_and_wrong_content_is_refused(checkpoint, fields, message):
    forge(checkpoint, **fields)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(checkpoint)


@pytest.mark.parametrize(
    "name",
    ["../secret.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", "x.pkl", ".safetensors", "MANIFEST.json"],
)
def test_a_manifest_cannot_point_outside_its_directory(checkpoint, name):
    entry = {"bytes": 1, "sha256": ""}
    forge(checkpoint, files={"state.json": entry, name: entry})
    with pytest.raises(CheckpointError, match=r"MANIFEST\.json: lists .*, needed state\.json or <stem>\.safetensors"):
        read_checkpoint(checkpoint)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"[" * 500_000, "found no JSON"),
        (b'{"format":' + b"[" * 900 + b"]" * 900 + b"}", "found no (JSON|'format')"),
        (b"[]", "found no 'format'"),
        (b"", "found no JSON"),
        (b"\xff\xfe\x00", "found no JSON"),
        (b" " * ((1 << 20) + 1), "found more than the 1048576 bytes"),
        (b'{"version": ' + b"9" * 5000 + b"}", "found no JSON"),
    ],
    ids=["deep", "nearly too deep", "list", "empty", "binary", "large", "long number"],
)
def test_a_manifest_that_is_no_manifest_is_refused(checkpoint, raw, message):
    (checkpoint / MANIFEST_NAME).write_bytes(raw)
    with pytest.raises(CheckpointError, match=rf"MANIFEST\.json: {message}"):
        read_checkpoint(checkpoint)


def header(text, data=b""):
    return len(text).to_bytes(8, "little") + text + data


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("state.json", b"[" * 200_000, r"state\.json: found no readable JSON"),
        ("state.json", b'{"a":' + b"[" * 200 + b"]" * 200 + b"}", r"nested deeper than 100 levels"),
        ("state.json", b"[1]", r"state\.json: found a list, needed a mapping"),
        ("state.json", b'{"a": ' + b"9" * 5000 + b"}", r"state\.json: found no readable JSON"),
        ("model.safetensors", b"", r"model\.safetensors: found no safetensors"),
        ("model.safetensors", b"\x80\x04cposix\nsystem\n(S'false'\ntR.", r"model\.safetensors: found a header of"),
        ("model.safetensors", (1 << 40).to_bytes(8, "little"), r"found a header of 1,099,511,627,776 bytes"),
        ("model.safetensors", header(b"{" * 5000), r"found no safetensors"),
        (
            "model.safetensors",
            header(b'{"w":{"dtype":"F32","shape":[9999999999],"data_offsets":[0,4]}}', b"1234"),
            r"no sa",
        ),
        (
            "model.safetensors",
            header(b'{"w":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}', b"1"),
            r"'w': found dtype torch\.float4|no safetensors",  # torch gained the type after 2.8
        ),
    ],
)
def test_a_hostile_file_with_a_right_manifest_is_refused(checkpoint, name, raw, message):
    (checkpoint / name).write_bytes(raw)
    (checkpoint / MANIFEST_NAME).write_bytes(render_manifest(checkpoint))
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(checkpoint)


def test_a_state_above_the_bound_is_refused_before_it_is_read(checkpoint, monkeypatch):
    monkeypatch.setattr(payload_module, "MAX_STATE_BYTES", 100)
    monkeypatch.setattr(payload_module.json, "loads", lambda raw: pytest.fail("read"))
    with pytest.raises(CheckpointError, match=r"state\.json: found [0-9]+ bytes, needed at most 100"):
        payload_module.read_files(checkpoint, ["state.json"], "cpu")


def test_a_path_that_is_no_directory_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere/MANIFEST\.json: no such file"):
        read_checkpoint(tmp_path / "nowhere")
