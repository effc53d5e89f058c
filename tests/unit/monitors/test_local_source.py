"""A folder of this machine as a source: what lies below its roots, wherever links lead."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modelcloud.errors import Forbidden, ModelcloudError, UsageError
from modelcloud.monitors.address import Addresses
from modelcloud.monitors.source import SourceSpec
from modelcloud.monitors.sources.local import Local


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A root with a model and a done-file, beside a secret."""
    (tmp_path / "secret").write_text("secret")
    root = tmp_path / "root"
    (root / "model").mkdir(parents=True)
    (root / "model" / "weights").write_text("w")
    (root / "done").write_text("1")
    return root


def guarded(folder: Path) -> Local:
    return Local(SourceSpec(type="local", path=str(folder), roots=(str(folder),)))


def test_without_roots_it_is_for_a_command_line_alone(folder: Path) -> None:
    with pytest.raises(Forbidden):
        Local(SourceSpec(type="local", path=str(folder)))
    free = SourceSpec(type="local", path=str(folder), addresses=Addresses(anything=True))
    assert Local(free).read("done", 10) == b"1"


def test_marks_tell_two_contents_of_one_size_apart(folder: Path) -> None:
    source = guarded(folder)
    (before,) = source.marks("model")
    os.utime(folder / "model" / "weights", ns=(1, 1))
    (after,) = source.marks("model")
    assert before is not None
    assert after is not None
    assert before.folder
    assert before.tag != after.tag
    assert source.marks("nothing", "done")[0] is None


@pytest.mark.parametrize("name", ["link", "inside/link"])
def test_a_link_that_leads_out_is_refused_in_every_way(folder: Path, name: str) -> None:
    (folder / "inside").mkdir()
    (folder / name).symlink_to(folder.parent / "secret")
    source, into = guarded(folder), folder.parent / "into"
    for ask in (
        lambda: source.marks(name),
        lambda: source.read(name, 10),
        lambda: source.fetch(name, into),
        lambda: source.marks("inside") if "/" in name else source.marks(name),
    ):
        with pytest.raises(Forbidden, match="leads out"):
            ask()
    assert not into.exists() or not into.read_bytes()


def test_a_link_to_a_model_inside_is_followed(folder: Path, tmp_path: Path) -> None:
    (folder / "current").symlink_to("model")
    guarded(folder).fetch("current", tmp_path / "into")
    assert (tmp_path / "into" / "weights").read_text() == "w"


def test_what_is_no_file_is_refused_and_not_waited_for(folder: Path, tmp_path: Path) -> None:
    os.mkfifo(folder / "pipe")
    with pytest.raises(UsageError, match="no file"):
        guarded(folder).read("pipe", 10)
    (folder / "model" / "linked").symlink_to(tmp_path)
    with pytest.raises(ModelcloudError, match="a link to a folder"):
        guarded(folder).fetch("model", tmp_path / "into")
