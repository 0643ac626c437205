import json

import pytest
import torch

from neuroexapt.errors import CheckpointError
from neuroexapt.train import payload as payload_module
from neuroexapt.train.payload import DTYPES, Payload, encode_state
from neuroexapt.train.store import read_checkpoint, write_checkpoint


def round_trip(tmp_path, tensors, state=None):
    write_checkpoint(tmp_path / "c", Payload(tensors=tensors, state=state or {}))
    return read_checkpoint(tmp_path / "c")


def same_bytes(first, second):
    views = [t.contiguous().reshape(-1).view(torch.uint8) for t in (first, second)]
    return first.dtype == second.dtype and first.shape == second.shape and torch.equal(*views)


@pytest.mark.parametrize("dtype", sorted(DTYPES, key=str), ids=str)
def test_every_dtype_comes_back_with_the_same_bytes_whatever_the_shape(tmp_path, dtype):
    tensors = {
        "matrix": torch.tensor([[1, 0, 1], [0, 1, 1]]).to(dtype),
        "scalar": torch.tensor(1).to(dtype),
        "empty": torch.empty(0, 3, dtype=dtype),
    }
    read = round_trip(tmp_path, {"model": tensors}).tensors["model"]
    assert read.keys() == tensors.keys()
    assert all(same_bytes(read[name], tensor) for name, tensor in tensors.items())


def test_views_shared_storage_and_parameters_are_saved_as_what_they_show(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    tensors = {
        "base": base,
        "again": base,
        "transposed": base.t(),
        "row": base[1],
        "column": base[:, 2],
        "expanded": torch.ones(1).expand(5),
        "channels_last": torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "conjugate": torch.tensor([1 + 2j]).conj(),
        "first_empty": torch.empty(0),
        "second_empty": torch.empty(0),
    }
    read = round_trip(tmp_path, {"model": tensors}).tensors["model"]
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())
    assert len({t.untyped_storage().data_ptr() for t in read.values() if t.numel()}) == len(tensors) - 2
    assert not any(t.requires_grad for t in read.values())


def test_not_a_number_and_negative_zero_keep_their_bits(tmp_path):
    special = torch.tensor([float("nan"), -0.0, float("inf"), 5e-324], dtype=torch.float64)
    assert same_bytes(round_trip(tmp_path, {"model": {"w": special}}).tensors["model"]["w"], special)


def test_a_group_without_tensors_and_a_payload_without_groups_are_checkpoints(tmp_path):
    assert round_trip(tmp_path, {"optimizer": {}}).tensors == {"optimizer": {}}
    write_checkpoint(tmp_path / "d", Payload(tensors={}, state={}))
    assert read_checkpoint(tmp_path / "d") == Payload(tensors={}, state={})


def test_the_state_comes_back_with_its_types_and_tuples_as_lists(tmp_path):
    state = {"i": 2**60, "f": 0.1, "t": True, "n": None, "s": "é😀\n", "l": [1, [2.5]], "best": float("inf")}
    assert round_trip(tmp_path, {}, {**state, "tuple": (1, 2)}).state == {**state, "tuple": [1, 2]}


def test_read_tensors_do_not_depend_on_the_files(tmp_path):
    read = round_trip(tmp_path, {"model": {"w": torch.arange(1000.0)}}).tensors["model"]["w"]
    (tmp_path / "c" / "model.safetensors").write_bytes(bytes(5000))
    assert torch.equal(read, torch.arange(1000.0))
    assert read.data_ptr() % 64 == 0


def test_files_are_readable_by_whom_the_umask_allows(tmp_path):
    round_trip(tmp_path, {"model": {"w": torch.ones(1)}})
    assert len({path.stat().st_mode for path in (tmp_path / "c").iterdir()}) == 1


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"w": torch.ones(2).to_sparse()}, r"model: 'w': found a torch.sparse_coo tensor, needed a dense one"),
        ({"w": torch.ones(2, device="meta")}, r"model: 'w': found a meta tensor"),
        ({"w": torch.ones(2, dtype=torch.complex128)}, r"model: 'w': found dtype torch.complex128"),
        ({"w": 3.0}, r"model: 'w': found a float, needed a tensor"),
        ({"__metadata__": torch.ones(1)}, r"'__metadata__': cannot be a tensor's name"),
        ({"a\ud800": torch.ones(1)}, r"cannot be a tensor's name, needed printable text"),
        ({5: torch.ones(1)}, r"model: 5: cannot be a tensor's name"),
    ],
)
def test_a_tensor_that_cannot_be_stored_is_named(tensors, message):
    with pytest.raises(CheckpointError, match=message):
        Payload(tensors={"model": tensors}, state={})


@pytest.mark.parametrize("stem", ["", "../up", "a/b", "Model", "a.b", "-a", "a" * 65, "model\n"])
def test_a_stem_that_is_no_plain_file_name_is_refused(stem):
    with pytest.raises(CheckpointError, match="payload: found the stem"):
        Payload(tensors={stem: {}}, state={})


def nested(depth):
    value = 0
    for _ in range(depth):
        value = [value]
    return {"deep": value}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a": {"b": [1, {2}]}}, r"state\.a\.b\.1: found a set, needed"),
        ({"a": {1: 2}}, r"state\.a: found the key 1, needed text"),
        ({"a": torch.ones(1)}, r"state\.a: found a Tensor.* Save tensors under `tensors`"),
        ({"a": 10**5000}, r"state: cannot be written as JSON: .*integer"),
        (nested(100), r"nested deeper than 100 levels"),
        (nested(100_000), r"nested deeper than 100 levels"),
    ],
)
def test_a_state_that_is_not_json_says_where(state, message):
    with pytest.raises(CheckpointError, match=message):
        encode_state(state)


def test_the_deepest_state_allowed_can_be_read_again(tmp_path):
    assert round_trip(tmp_path, {}, nested(99)).state == nested(99)


def test_a_state_or_a_header_above_the_bound_is_refused_when_written(tmp_path, monkeypatch):
    monkeypatch.setattr(payload_module, "MAX_STATE_BYTES", 20)
    with pytest.raises(CheckpointError, match="state: found 29 bytes, needed at most 20"):
        encode_state({"a": "x" * 21})
    monkeypatch.setattr(payload_module, "MAX_HEADER_BYTES", 100)
    with pytest.raises(CheckpointError, match=r"header of [0-9]+ bytes, needed at most 100"):
        write_checkpoint(tmp_path / "c", Payload(tensors={"m": {"n" * 100: torch.ones(1)}}, state={}))
    assert list(tmp_path.iterdir()) == []


def test_the_state_is_plain_json_on_disk(tmp_path):
    round_trip(tmp_path, {}, {"epoch": 3})
    assert json.loads((tmp_path / "c" / "state.json").read_text()) == {"epoch": 3}
