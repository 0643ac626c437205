import os
import shutil
from collections import namedtuple

from neuroexapt.resources import free_disk_bytes, memory, peak_resident_bytes, resident_bytes


def test_resident_memory_follows_what_is_touched():
    before = resident_bytes()
    block = bytearray(os.urandom(1 << 16) * 512)
    assert resident_bytes() - before > len(block) // 2
    del block
    assert 1 << 20 < before < 1 << 40


def test_the_peak_stays_when_the_memory_is_given_back():
    block = bytearray(os.urandom(1 << 16) * 1024)
    during = resident_bytes()
    del block
    assert peak_resident_bytes() >= during
    assert peak_resident_bytes() >= resident_bytes()


def test_the_peak_is_found_without_the_file_of_linux(tmp_path, monkeypatch):
    exact = peak_resident_bytes()
    monkeypatch.setattr(memory, "_PROCESS_STATUS", tmp_path / "status")
    assert peak_resident_bytes() >= exact // 2
    (tmp_path / "status").write_text("Name:\tx\n")
    assert peak_resident_bytes() >= exact // 2


def test_the_free_disk_of_a_path_that_is_not_there_yet_is_that_of_its_parent(tmp_path, monkeypatch):
    asked = []
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: asked.append(path) or usage(7))
    assert free_disk_bytes(tmp_path / "a" / "b") == 7
    assert free_disk_bytes(str(tmp_path)) == 7
    assert asked == [tmp_path, tmp_path]


def test_the_free_disk_here_is_a_number_of_bytes(tmp_path):
    assert 0 <= free_disk_bytes(tmp_path) <= shutil.disk_usage(tmp_path).total
