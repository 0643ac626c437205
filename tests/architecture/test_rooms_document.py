"""docs/architecture.md lists every room and file with the idea that its docstring opens with."""

from __future__ import annotations

from architecture import rooms


def test_the_list_of_rooms_is_the_one_in_the_code() -> None:
    assert rooms.written() == rooms.render(), "run python tests/architecture/rooms.py"


def test_every_folder_of_the_package_is_a_room() -> None:
    folders = {path.name for path in rooms.SOURCE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == {room for room in rooms.TOP_DOWN if not room.endswith(".py")}
