"""What counts as an edit, and that an edit is taken once it stands still."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from modelcloud.serve.watch import Look, look, watch


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.py").write_text("x = 1")
    (tmp_path / "weights.bin").write_bytes(b"1")
    (tmp_path / "notes.txt").write_text("not served")
    return tmp_path


FILES = ("model.py", "weights.bin")


def test_a_changed_served_file_a_new_module_and_a_lost_file_are_edits(folder: Path) -> None:
    first = look(folder, FILES)
    assert look(folder, FILES) == first

    (folder / "weights.bin").write_bytes(b"22")
    second = look(folder, FILES)
    assert second != first

    (folder / "helper.py").write_text("")
    third = look(folder, FILES)
    assert third != second

    (folder / "model.py").unlink()
    assert look(folder, FILES) != third


def test_a_file_that_is_not_served_is_no_edit(folder: Path) -> None:
    first = look(folder, FILES)
    (folder / "notes.txt").write_text("changed")
    (folder / "other.bin").write_bytes(b"")
    assert look(folder, FILES) == first


def test_a_folder_that_is_gone_is_an_empty_look(tmp_path: Path) -> None:
    assert look(tmp_path / "gone", FILES) == {}


async def _changes(looks: list[Look]) -> int:
    """How often `changed` is awaited while these looks are seen one after the other."""
    calls = 0

    async def changed() -> None:
        nonlocal calls
        calls += 1

    with contextlib.suppress(IndexError):  # no look is left
        await watch(lambda: looks.pop(0), changed, interval_s=0)
    return calls


@pytest.mark.parametrize(
    ("looks", "calls"),
    [
        ("AA", 1),  # once at the start, for what was edited since the files were staged
        ("AAAA", 1),
        ("AABB", 2),
        ("AABCDD", 2),  # an editor's several writes are one edit
        ("AABBCC", 3),  # the second edit counts whether the first was good or not
        ("AABBAA", 3),  # so does taking an edit back
        ("AABCBC", 1),  # never still: not yet
    ],
)
def test_an_edit_is_taken_once_the_files_stand_still(looks: str, calls: int) -> None:
    seen: list[Look] = [{name: (0, 0, 0)} for name in looks]
    assert asyncio.run(_changes(seen)) == calls
