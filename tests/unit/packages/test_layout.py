"""What `modelcloud new algopkg` makes, and what it leaves as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelcloud.errors import UsageError
from modelcloud.packages import conf, layout, sources


def names(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def test_a_new_package_stands_in_a_conf_ini_that_is_accepted(tmp_path: Path) -> None:
    done = layout.new(tmp_path, "Faces")
    assert done.hint == ""
    assert names(tmp_path) == [
        "Model_ZOO", "algopkg", "algopkg/Faces", "algopkg/Faces/__init__.py",
        "algopkg/Faces/backend.py", "algopkg/Faces/requirements.txt", "conf.ini",
    ]  # fmt: skip
    found, problems = conf.parse((tmp_path / "conf.ini").read_text(), "conf.ini")
    assert problems == []
    assert sources.read(found, tmp_path)[1] == []


def test_a_second_package_is_added_to_the_conf_ini_that_is_there(tmp_path: Path) -> None:
    layout.new(tmp_path, "Faces")
    before = (tmp_path / "conf.ini").read_text()
    assert "[algopkg.Plates] was added" in layout.new(tmp_path, "Plates").hint
    after = (tmp_path / "conf.ini").read_text()
    assert after.startswith(before)
    assert [one.name for one in conf.parse(after, "")[0].sections] == ["Faces", "Plates"]


def test_what_is_there_is_never_written_over(tmp_path: Path) -> None:
    layout.new(tmp_path, "Faces")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    for path in files:
        path.write_text(path.read_text() + "# mine\n")
    before = {path: path.read_text() for path in files}
    done = layout.new(tmp_path, "Faces")
    assert done.made == []
    assert {path: path.read_text() for path in files} == before


@pytest.mark.parametrize(
    "text", ["[MODEL SERVE]\nport = x\n", "[algopkg.B]\nbackend = B\nroute = faces\n"]
)
def test_a_conf_ini_that_does_not_take_the_section_is_left_with_a_hint(
    tmp_path: Path, text: str
) -> None:
    (tmp_path / "conf.ini").write_text(text)
    done = layout.new(tmp_path, "Faces")
    assert (tmp_path / "conf.ini").read_text() == text
    assert "left as it is" in done.hint
    assert "[algopkg.Faces]" in done.hint


@pytest.mark.parametrize("name", ["", "a-b", "../x", "_x", "1x", "a.b", "ü", "x" * 64])
def test_a_name_that_python_cannot_import_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="accepted: letters, digits and _"):
        layout.new(tmp_path, name)
    assert names(tmp_path) == []
