"""A snapshot holds the code of a target as it was, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from modelcloud.artifacts import snapshot
from modelcloud.errors import ModelLoadError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = (tmp_path / "project").resolve()
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def into(tmp_path: Path) -> Path:
    return tmp_path / "staged"


def write(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {name}\n")


def test_the_code_below_the_main_file_is_taken_and_nothing_else(folder: Path, into: Path) -> None:
    write(folder, "model.py", "helper.py", "pkg/__init__.py", "pkg/deep/part.py")
    write(folder, "warmup.jsonl", "golden.jsonl")
    write(folder, "weights.bin", "config.json", "pkg/golden.jsonl", ".git/hook.py")
    write(folder, "__pycache__/x.py", "node_modules/x.py", "env/pyvenv.cfg", "env/lib/x.py")
    taken = snapshot.take("model.py", into)
    assert list(taken.files) == [
        "golden.jsonl", "helper.py", "model.py", "pkg/__init__.py", "pkg/deep/part.py",
        "warmup.jsonl",
    ]  # fmt: skip
    assert taken.root == folder
    assert taken.main == "model.py"
    companion = taken.companion("warmup.jsonl")
    assert companion is not None
    assert companion.read_text() == "# warmup.jsonl\n"
    assert taken.companion("other.jsonl") is None
    for name in taken.files:
        assert (taken.folder / name).read_bytes() == (folder / name).read_bytes()


def test_equal_code_gives_the_same_folder_and_other_code_another(folder: Path, into: Path) -> None:
    write(folder, "model.py")
    first = snapshot.take("model.py", into)
    assert snapshot.take(str(folder / "model.py"), into) == first
    write(folder, "helper.py")
    second = snapshot.take("model.py", into)
    assert second.digest != first.digest
    (folder / "helper.py").unlink()
    assert snapshot.take("model.py", into) == first
    assert {path.name for path in into.iterdir()} == {first.digest, second.digest}


def test_a_snapshot_below_the_root_does_not_hold_itself(folder: Path) -> None:
    write(folder, "model.py")
    first = snapshot.take("model.py", folder / "run")
    assert snapshot.take("model.py", folder / "run") == first


def test_links_out_of_the_root_are_not_followed(folder: Path, into: Path, tmp_path: Path) -> None:
    write(tmp_path, "elsewhere/secret.py")
    write(folder, "model.py", "real.py")
    (folder / "out.py").symlink_to(tmp_path / "elsewhere/secret.py")
    (folder / "out").symlink_to(tmp_path / "elsewhere")
    (folder / "loop").symlink_to(folder)
    (folder / "endless.py").symlink_to("endless.py")
    (folder / "inside.py").symlink_to(folder / "real.py")
    assert list(snapshot.take("model.py", into).files) == ["inside.py", "model.py", "real.py"]


def test_a_linked_main_file_is_served_from_where_it_is(folder: Path, into: Path) -> None:
    write(folder, "v3/model.py")
    (folder / "current").symlink_to(folder / "v3")
    (folder / "link.py").symlink_to(folder / "v3" / "model.py")
    for target in ("current/model.py", "link.py", "current"):
        assert snapshot.take(target, into).root == folder / "v3"


@pytest.mark.parametrize(
    ("limit", "value", "says"),
    [
        ("MAX_FILES", 2, "more than 2 Python files"),
        ("MAX_BYTES", 10, "more than 10 bytes of code"),
        ("MAX_DEPTH", 1, "folders nested deeper than 1"),
        ("MAX_ENTRIES", 2, "more than 2 files and folders"),
    ],
)
def test_too_much_is_refused_and_leaves_nothing(
    folder: Path, into: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int, says: str
) -> None:
    write(folder, "model.py", "a.py", "b.py", "c/d.py")
    monkeypatch.setattr(snapshot, limit, value)
    with pytest.raises(ModelLoadError, match=says):
        snapshot.take("model.py", into)
    assert list(into.iterdir()) == []


@pytest.mark.parametrize("damage", ["change", "remove", "add", "manifest"])
def test_a_damaged_snapshot_is_refused(folder: Path, into: Path, damage: str) -> None:
    write(folder, "model.py", "helper.py")
    taken = snapshot.take("model.py", into)
    match damage:
        case "change":
            (taken.folder / "helper.py").write_text("# helper.pY\n")
        case "remove":
            (taken.folder / "helper.py").unlink()
        case "add":
            write(taken.folder, "added.py")
        case "manifest":
            manifest = taken.folder / "manifest.json"
            manifest.write_text(manifest.read_text().replace("helper.py", "helpes.py"))
    with pytest.raises(ModelLoadError, match="staged code"):
        snapshot.verify(taken.folder)


def test_a_copy_that_cannot_be_written_leaves_nothing(
    folder: Path, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    write(folder, "model.py")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        snapshot.take("model.py", into)
    assert list(into.iterdir()) == []


def test_nothing_is_imported_to_find_a_module(folder: Path, into: Path) -> None:
    write(folder, "pkg/__init__.py", "other.py")
    for name in ("pkg/__init__.py", "pkg/algo.py"):
        (folder / name).write_text("raise SystemExit('imported')\n")
    taken = snapshot.take("pkg.algo:f", into)
    assert taken.root == folder
    assert taken.main == "pkg/algo.py"
    assert list(taken.files) == ["other.py", "pkg/__init__.py", "pkg/algo.py"]


def test_an_installed_module_is_left_to_its_environment(folder: Path, into: Path) -> None:
    write(folder, "env/site-packages/lib.py")
    program = (
        "import sys; sys.path.append('env/site-packages')\n"
        "from pathlib import Path; from modelcloud.artifacts import snapshot\n"
        "for target in ('msgspec.json:encode', 'lib:f', 'not_there:f'):\n"
        "    taken = snapshot.take(target, Path(sys.argv[1]))\n"
        "    print(taken.main, dict(taken.files))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(into)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n") == [" {}"] * 3 + [""]


@pytest.mark.parametrize(
    "target",
    [
        "nowhere.py",
        "nowhere.py:f",
        "data.txt",
        "sub",
        "both",
        "a-b:f",
        "model.py:1f",
        "pkg.no:f",
        "",
    ],
)
def test_a_target_that_is_not_there_is_refused_with_what_is_accepted(
    folder: Path, into: Path, target: str
) -> None:
    write(folder, "data.txt", "sub/x.py", "both/model.py", "both/backend.py", "pkg/__init__.py")
    with pytest.raises(ModelLoadError, match=r"accepted: path/model\.py"):
        snapshot.take(target, into)
