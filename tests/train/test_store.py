import os
import shutil

import pytest
import torch

from neuroexapt.errors import CheckpointError, InputError
from neuroexapt.train import store as store_module
from neuroexapt.train.payload import Payload
from neuroexapt.train.store import CheckpointStore, read_checkpoint, write_checkpoint


def payload(value):
    return Payload(tensors={"model": {"w": torch.full((50,), float(value))}}, state={"value": value})


def names(root):
    return sorted(path.name for path in root.iterdir())


@pytest.fixture(name="store")
def fixture_store(tmp_path):
    return CheckpointStore(tmp_path / "run" / "checkpoints")


def damage(path):
    file = path / "model.safetensors"
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)


def test_write_refuses_a_name_that_exists_and_leaves_it_alone(tmp_path):
    write_checkpoint(tmp_path / "a" / "c", payload(1))
    with pytest.raises(CheckpointError, match=r"a/c: exists already, needed a new name"):
        write_checkpoint(tmp_path / "a" / "c", payload(2))
    assert read_checkpoint(tmp_path / "a" / "c").state == {"value": 1}
    assert names(tmp_path / "a") == ["c"]


def test_the_newest_is_the_one_with_the_highest_step(store):
    for step in (120, 7, 100_000_000):
        assert store.save(step, payload(step)) == store.root / f"step-{step:08d}"
    path, read, skipped = store.newest()
    assert (path.name, read.state, skipped) == ("step-100000000", {"value": 100_000_000}, [])
    assert names(store.root) == ["step-00000007", "step-00000120", "step-100000000"]


def test_saving_a_step_again_replaces_it(store):
    store.save(1, payload(10))
    store.save(1, payload(20))
    assert store.newest().payload.state == {"value": 20}
    assert names(store.root) == ["step-00000001"]


def test_a_damaged_newest_is_passed_over_with_its_reason(store):
    for step in (1, 2, 3):
        store.save(step, payload(step))
    damage(store.root / "step-00000003")
    shutil.rmtree(store.root / "step-00000002")
    (store.root / "step-00000002").mkdir()
    newest = CheckpointStore(store.root).newest()
    assert newest.payload.state == {"value": 1}
    assert [path.name for path, _ in newest.skipped] == ["step-00000003", "step-00000002"]
    assert "its content changed" in newest.skipped[0][1]
    assert "not a finished checkpoint" in newest.skipped[1][1]


def test_a_damaged_checkpoint_is_replaced_by_the_resumed_run(store):
    damage(store.save(1, payload(1)))
    store.save(1, payload(2))
    assert store.newest().skipped == []


def test_without_a_sound_checkpoint_the_error_lists_what_is_wrong_with_each(store):
    with pytest.raises(CheckpointError, match="found no checkpoint that verifies among 0, needed one"):
        store.newest()
    for step in (1, 2):
        damage(store.save(step, payload(step)))
    with pytest.raises(CheckpointError, match=r"(?s)among 2.*step-00000002.*changed.*step-00000001.*changed"):
        store.newest()


@pytest.mark.parametrize("keep", [1, 0, -1])
def test_fewer_than_two_checkpoints_are_not_enough(tmp_path, keep):
    with pytest.raises(InputError, match=rf"keep: found {keep}, needed at least 2"):
        CheckpointStore(tmp_path, keep=keep)


def test_a_negative_step_is_refused(store):
    with pytest.raises(CheckpointError, match="found step -1, needed 0 or more"):
        store.save(-1, payload(0))


def test_purge_keeps_the_newest_and_the_pinned(store):
    for step in range(6):
        store.save(step, payload(step))
    removed = store.purge(pinned={"step-00000001", "step-00000099"})
    assert [path.name for path in removed] == ["step-00000003", "step-00000002", "step-00000000"]
    assert names(store.root) == ["step-00000001", "step-00000004", "step-00000005"]
    assert store.purge(pinned=["step-00000001"]) == []


def test_purge_does_not_count_a_damaged_checkpoint(store):
    for step in range(5):
        store.save(step, payload(step))
    for step in (4, 2):
        damage(store.root / f"step-{step:08d}")
    CheckpointStore(store.root).purge()
    assert names(store.root) == [f"step-{step:08d}" for step in (1, 2, 3, 4)]


def test_purge_verifies_a_checkpoint_once(store, monkeypatch):
    calls = []
    real = store_module.verify
    monkeypatch.setattr(store_module, "verify", lambda path: calls.append(path.name) or real(path))
    store.save(1, payload(1))
    other = CheckpointStore(store.root)
    other.save(2, payload(2))
    other.purge()
    other.purge()
    assert calls == ["step-00000001"]


def test_purge_of_a_root_that_is_not_there_does_nothing(store):
    assert store.purge() == []
    assert not store.root.exists()


def test_purge_removes_what_dead_processes_left_and_nothing_else(store):
    dead = os.fork()
    if dead == 0:
        os._exit(0)
    os.waitpid(dead, 0)
    store.save(1, payload(1))
    stale = [f".tmp-{pid}-0123456789abcdef" for pid in (dead, os.getpid())]
    foreign = [f".tmp-{os.getppid()}-0123456789abcdef", ".tmp-1-x", "notes", "step-1", "step-00000002.old"]
    for name in stale + foreign:
        (store.root / name).mkdir()
    store.purge()
    assert names(store.root) == sorted([*foreign, "step-00000001"])


def test_a_replacement_cut_short_is_read_and_later_put_back(store):
    old = store.save(1, payload(1))
    old.rename(store.root / "step-00000001.replaced")
    path, read, skipped = store.newest()
    assert (path.name, read.state, skipped) == ("step-00000001.replaced", {"value": 1}, [])
    store.purge()
    assert names(store.root) == ["step-00000001"]


@pytest.mark.parametrize(("damaged", "survivor"), [("old", 2), ("new", 1), ("both", None), ("none", 2)])
def test_of_a_step_and_its_replaced_copy_the_sound_one_stays(store, damaged, survivor):
    old = store.save(1, payload(1)).rename(store.root / "step-00000001.replaced")
    new = store.save(3, payload(2)).rename(store.root / "step-00000001")
    for path, kind in ((old, "old"), (new, "new")):
        if damaged in (kind, "both"):
            damage(path)
    if survivor is not None:
        assert store.newest().payload.state == {"value": survivor}
    CheckpointStore(store.root).purge()
    assert names(store.root) == ["step-00000001"]
    if survivor is not None:
        assert store.newest().payload.state == {"value": survivor}


def test_a_replacement_cut_short_does_not_stop_the_next_one(store):
    store.save(1, payload(1)).rename(store.root / "step-00000001.replaced")
    store.save(3, payload(2)).rename(store.root / "step-00000001")
    store.save(1, payload(3))
    assert store.newest().payload.state == {"value": 3}
    assert names(store.root) == ["step-00000001"]


def test_a_replacement_that_fails_half_way_puts_the_old_one_back_under_its_name(store, monkeypatch):
    store.save(1, payload(1))
    real, sources = os.rename, []

    def fail_the_second(source, target):
        sources.append(source)
        if len(sources) == 2:
            raise OSError("refused")
        real(source, target)

    monkeypatch.setattr(os, "rename", fail_the_second)
    with pytest.raises(CheckpointError, match="step-00000001: could not be written: refused"):
        store.save(1, payload(2))
    assert names(store.root) == ["step-00000001"]
    assert store.newest().payload.state == {"value": 1}


def test_a_file_or_link_in_the_way_of_a_step_is_left_alone(store, tmp_path):
    store.root.mkdir(parents=True)
    (store.root / "step-00000001").write_text("mine")
    (store.root / "step-00000002").symlink_to(tmp_path)
    for step in (1, 2):
        with pytest.raises(CheckpointError, match="found a file or link, needed a checkpoint or nothing"):
            store.save(step, payload(1))
    assert store.purge() == []
    assert names(store.root) == ["step-00000001", "step-00000002"]


def test_a_root_that_is_a_file_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").write_text("")
    store = CheckpointStore(tmp_path / "file")
    with pytest.raises(CheckpointError, match=r"file/step-00000001: could not be written: .*File exists"):
        store.save(1, payload(1))
    with pytest.raises(CheckpointError, match="found no checkpoint that verifies"):
        store.newest()


def test_a_device_that_is_not_there_is_not_blamed_on_the_checkpoint(store):
    store.save(1, payload(1))
    with pytest.raises((RuntimeError, AssertionError), match=r"(?i)cuda"):
        store.newest(device="cuda:99")


@pytest.mark.gpu
def test_a_checkpoint_goes_to_an_accelerator_and_back(store):
    on_device = {"w": torch.arange(50.0, device="cuda"), "t": torch.ones(3, 4, device="cuda").t()}
    store.save(1, Payload(tensors={"model": on_device}, state={}))
    read = store.newest(device="cuda").payload.tensors["model"]
    assert all(read[name].is_cuda and torch.equal(read[name], tensor) for name, tensor in on_device.items())
