"""What in a group's folder can be registered, whatever its users' programs put there."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelcloud.control.services import group_folders
from modelcloud.control.services.group_folders import below, found_in
from modelcloud.errors import InvalidInput


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A group's folder, beside one that is none of it."""
    top = tmp_path / "group"
    for name in ("fib", "deep/er", ".hidden", "env", "two", "empty"):
        (top / name).mkdir(parents=True)
    for file in ("fib/model.py", "deep/er/backend.py", ".hidden/model.py", "env/model.py",
                 "env/pyvenv.cfg", "two/model.py", "two/backend.py", "model.py"):  # fmt: skip
        (top / file).touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model.py").touch()
    (top / "link").symlink_to(tmp_path / "other")
    return top


def test_the_folders_with_one_main_file_are_found(top: Path) -> None:
    found = [(one.folder, one.main) for one in found_in(top)]
    assert found == [("deep/er", "backend.py"), ("fib", "model.py")]
    assert found_in(top / "none") == []


def test_the_search_has_an_end(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        (top / "many" / str(number)).mkdir(parents=True)
        (top / "many" / str(number) / "model.py").touch()
    monkeypatch.setattr(group_folders, "MOST_LOOKED_AT", 5)
    assert len(found_in(top)) < 5
    monkeypatch.setattr(group_folders, "MOST_LOOKED_AT", 100)
    assert len(found_in(top)) == 22
    monkeypatch.setattr(group_folders, "DEEPEST", 1)
    assert [one.folder for one in found_in(top)] == ["fib"]


def test_a_folder_is_named_by_its_path_below_the_groups(top: Path) -> None:
    assert below(top, "fib") == top / "fib"
    assert below(top, "deep/er/") == top / "deep" / "er"


@pytest.mark.parametrize(
    "folder",
    ["", ".", "..", "../other", "fib/../../other", "/etc", "link", "link/x", "none", "model.py",
     "a\0b"],
)  # fmt: skip
def test_what_lies_elsewhere_is_refused(top: Path, folder: str) -> None:
    with pytest.raises(InvalidInput, match="workspace folder"):
        below(top, folder)
