"""Kills and failing system calls: whatever happens, the old or the new checkpoint loads, never neither."""

import contextlib
import errno
import logging
import os
import random
import signal
import time
import warnings

import pytest
import torch
from safetensors import SafetensorError

from neuroexapt.errors import CheckpointError
from neuroexapt.train import payload as payload_module
from neuroexapt.train import store as store_module
from neuroexapt.train.payload import Payload
from neuroexapt.train.store import CheckpointStore, read_checkpoint, write_checkpoint

CALLS = ("fsync", "rename", "mkdir", "unlink", "rmdir")


def payload(step, version=0):
    value = float(10 * step + version)
    tensors = {stem: {"w": torch.full((500,), value)} for stem in ("model", "optimizer")}
    return Payload(tensors=tensors, state={"step": step, "version": version})


def assert_newest_is_whole(root):
    """Loads the newest checkpoint, checks that its files belong together and returns (step, version)."""
    newest = CheckpointStore(root).newest()
    step, version = newest.payload.state["step"], newest.payload.state["version"]
    for group in newest.payload.tensors.values():
        assert torch.equal(group["w"], torch.full((500,), float(10 * step + version)))
    assert newest.skipped == []
    for path in root.glob("step-*"):
        read_checkpoint(path)  # nothing half removed keeps its name
    return step, version


def assert_a_restart_leaves_no_orphan(root):
    store = CheckpointStore(root)
    store.save(9, payload(9))
    store.save(9, payload(9, 1))
    store.purge()
    left = sorted(path.name for path in root.iterdir())
    assert len(left) == 2
    assert left[1] == "step-00000009"
    assert all(len(name) == len("step-00000009") and name.startswith("step-") for name in left)


def fork(work):
    """Runs ``work`` in a child without importing torch again; returns its process id."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on forks beside threads; the child has none
        child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child


@pytest.fixture(name="root")
def fixture_root(tmp_path):
    """A store with two checkpoints, of steps 1 and 2."""
    store = CheckpointStore(tmp_path / "c")
    for step in (1, 2):
        store.save(step, payload(step))
    return store.root


def work_on(root):
    """A resumed run: step 2 again, then 3, then a purge."""
    store = CheckpointStore(root)
    store.save(2, payload(2, 1))
    store.save(3, payload(3))
    return store.purge()


class FailingCalls:
    """Counts the calls that change the disk and lets ``fail`` act before the k-th, or after it."""

    def __init__(self, monkeypatch, k, fail, *, after=False, persistent=False):
        self.count, self.k, self.fail, self.after, self.persistent = 0, k, fail, after, persistent
        for name in CALLS:
            monkeypatch.setattr(os, name, self._wrap(getattr(os, name)))
        monkeypatch.setattr(payload_module, "save_file", self._wrap(payload_module.save_file))

    def _wrap(self, real):
        def call(*args, **kwargs):
            self.count += 1
            hit = self.count >= self.k if self.persistent else self.count == self.k
            if hit and not self.after:
                self.fail()
            result = real(*args, **kwargs)
            if hit and self.after:
                self.fail()
            return result

        return call


def num_calls(root):
    with pytest.MonkeyPatch.context() as patch:
        counter = FailingCalls(patch, 0, lambda: None)
        work_on(root)
    return counter.count


def test_a_death_at_any_call_leaves_the_old_or_the_new_checkpoint(root, tmp_path, monkeypatch):
    total = num_calls(CheckpointStore(make_copy(root, tmp_path / "count")).root)
    assert total > 25
    seen = set()
    for k in range(1, total + 1):
        copy = make_copy(root, tmp_path / str(k))

        def die_at_k(copy=copy, k=k):
            FailingCalls(monkeypatch, k, lambda: os._exit(9))
            work_on(copy)

        os.waitpid(fork(die_at_k), 0)
        seen.add(assert_newest_is_whole(copy))
        assert_a_restart_leaves_no_orphan(copy)
    assert seen == {(2, 0), (2, 1), (3, 0)}


@pytest.mark.parametrize("persistent", [False, True], ids=["once", "for ever"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_an_error_of_any_call_leaves_the_old_or_the_new_checkpoint(root, tmp_path, caplog, code, persistent):
    def fail():
        raise OSError(code, os.strerror(code))

    caplog.set_level(logging.WARNING)
    total, seen = num_calls(make_copy(root, tmp_path / "count")), set()
    for k in range(1, total + 1):
        copy = make_copy(root, tmp_path / str(k))
        caplog.clear()
        with pytest.MonkeyPatch.context() as patch:
            FailingCalls(patch, k, fail, persistent=persistent)
            told = []
            try:
                work_on(copy)
            except CheckpointError as error:
                told.append(str(error))
        told += [record.getMessage() for record in caplog.records]
        assert any(os.strerror(code) in text and str(copy) in text for text in told), k
        seen.add(assert_newest_is_whole(copy))
        assert_a_restart_leaves_no_orphan(copy)
    assert seen == {(2, 0), (2, 1), (3, 0)}


def test_an_error_that_comes_after_the_call_took_effect_is_survived_too(root, tmp_path):
    def fail():
        raise OSError(errno.EIO, "late")

    for k in range(1, num_calls(make_copy(root, tmp_path / "count")) + 1):
        copy = make_copy(root, tmp_path / str(k))
        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(CheckpointError):
            FailingCalls(patch, k, fail, after=True)
            work_on(copy)
        assert_newest_is_whole(copy)
        assert_a_restart_leaves_no_orphan(copy)


def make_copy(root, target):
    target.mkdir()
    for path in root.iterdir():
        (target / path.name).mkdir()
        for file in path.iterdir():
            os.link(file, target / path.name / file.name)
    return target


def save_for_ever(root, first_step, report):
    store = CheckpointStore(root)
    for step in range(first_step, 10_000):
        for version in (0, 1):
            store.save(step, payload(step, version))
            os.write(report, f"{step} {version}\n".encode())
        store.purge()


def killed_after(root, first_step, seconds):
    """Kills a saving child; returns the last (step, version) that it reported as saved."""
    reader, writer = os.pipe()
    child = fork(lambda: save_for_ever(root, first_step, writer))
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        first = pipe.readline()
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        last = [first, *(line for line in pipe if line.endswith(b"\n"))][-1]
    step, version = last.split()
    return int(step), int(version)


@pytest.mark.parametrize("trial", range(8))
def test_kill_minus_nine_at_a_random_time_loses_nothing_that_was_reported_saved(tmp_path, trial):
    chance, step = random.Random(trial), 1
    for _ in range(2):  # the second child resumes on what the first one left
        reported = killed_after(tmp_path, step, chance.uniform(0.0, 0.05))
        found = assert_newest_is_whole(tmp_path)
        assert found >= reported
        step = found[0] + 1
    CheckpointStore(tmp_path).purge()
    assert all(path.name.startswith("step-") and not path.suffix for path in tmp_path.iterdir())


@pytest.mark.parametrize("free", [0, 4000])
def test_a_disk_that_is_nearly_full_is_seen_before_anything_is_written(root, monkeypatch, free):
    monkeypatch.setattr(store_module, "free_disk_bytes", lambda path: free)
    monkeypatch.setattr(store_module, "write_files", lambda *args: pytest.fail("written"))
    message = rf"{root}/step-00000003: could not be written: the disk is nearly full\. "
    with pytest.raises(CheckpointError, match=message + rf"Needed [5-9],\d+ bytes with a reserve, found {free:,} free"):
        CheckpointStore(root).save(3, payload(3))
    assert assert_newest_is_whole(root) == (2, 0)
    assert len(list(root.iterdir())) == 2


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("No space left")])
def test_a_disk_that_fills_up_while_writing_is_told_with_path_needed_and_free(root, monkeypatch, error):
    def full(tensors, path):
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr(payload_module, "save_file", full)
    message = rf"{root}/step-00000002: could not be written: .*No space left.*Needed [\d,]+ bytes .* found [\d,]+ free"
    with pytest.raises(CheckpointError, match=message) as caught:
        CheckpointStore(root).save(2, payload(2, 1))
    assert caught.value.__cause__ is error
    assert assert_newest_is_whole(root) == (2, 0)
    assert len(list(root.iterdir())) == 2


def test_an_interrupt_while_writing_leaves_no_half_checkpoint(root, monkeypatch):
    def interrupted(path):
        raise KeyboardInterrupt("by hand")

    monkeypatch.setattr(payload_module, "sync", interrupted)
    with pytest.raises(KeyboardInterrupt, match="by hand"):
        CheckpointStore(root).save(2, payload(2, 1))
    assert assert_newest_is_whole(root) == (2, 0)
    assert len(list(root.iterdir())) == 2


@pytest.fixture(name="disk_calls")
def fixture_disk_calls(monkeypatch):
    """The fsyncs and renames in order: a missing fsync shows only after a power cut, so the order is what is tested."""
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc to name descriptors")
    calls = []
    real_fsync, real_rename = os.fsync, os.rename

    def fsync(descriptor):
        calls.append(("fsync", os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")).partition("-")[0]))
        real_fsync(descriptor)

    def rename(source, target):
        calls.append(("rename", os.path.basename(target).partition("-0")[0]))
        real_rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    return calls


WRITTEN = [
    ("fsync", name) for name in ("state.json", "model.safetensors", "optimizer.safetensors", "MANIFEST.json", ".tmp")
]


def test_everything_is_on_the_disk_before_the_name_that_reveals_it(tmp_path, disk_calls):
    write_checkpoint(tmp_path / "c" / "new", payload(1))
    root_made = ("fsync", tmp_path.name.partition("-")[0])
    assert disk_calls == [root_made, *WRITTEN, ("rename", "new"), ("fsync", "c")]


def test_the_old_checkpoint_goes_only_when_the_name_of_the_new_one_is_on_the_disk(root, disk_calls):
    CheckpointStore(root).save(2, payload(2, 1))
    swap = [("rename", "step"), ("rename", "step"), ("fsync", "c")]
    assert disk_calls[:-1] == [*WRITTEN, *swap]
    assert disk_calls[-1][0] == "rename"
    assert disk_calls[-1][1].startswith(".tmp-")
