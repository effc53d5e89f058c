"""A model's folder becomes one archive: all of the model, nothing else, always the same."""

from __future__ import annotations

import os
import shutil
import tarfile
import time
from pathlib import Path

import pytest

from modelcloud.artifacts.archive import unpack
from modelcloud.artifacts.tree import Caps
from modelcloud.cli.pack import ARCHIVES, packed
from modelcloud.errors import ModelLoadError, UsageError


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def names(path: Path, main: str = "") -> tuple[list[str], str]:
    """What is in the archive of a path, and its main file."""
    with packed(path, main) as (archive, found), tarfile.open(archive) as tar:
        return tar.getnames(), found


def data(path: Path) -> bytes:
    with packed(path) as (archive, _):
        return archive.read_bytes()


def test_equal_folders_give_equal_archives_whoever_packs_them_and_when(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write(tmp_path / "a", **{"model.py": "x = 1\n", "b/c.py": "", "b.txt": "é"})
    before = data(first)
    second = tmp_path / "elsewhere" / "z"
    shutil.copytree(first, second)
    (second / "model.py").chmod(0o755)
    os.utime(second / "b.txt", (1, 1))
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert data(second) == before
    (second / "b.txt").write_text("e")
    assert data(second) != before


def test_links_hidden_files_caches_and_environments_are_left_out(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "m",
        **{
            "model.py": "", "weights/w.bin": "", ".env": "", ".git/config": "",
            "__pycache__/model.pyc": "", "node_modules/x.js": "", "env/pyvenv.cfg": "",
            "env/lib/x.py": "", "conda/conda-meta/history": "",
        },
    )  # fmt: skip
    secret = write(tmp_path / "other", key="s3cret")
    (folder / "link.py").symlink_to(secret / "key")
    (folder / "linked").symlink_to(secret)
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "pipe")
    assert names(folder) == (["model.py", "weights/w.bin"], "")


def test_what_was_packed_is_what_the_platform_unpacks(tmp_path: Path) -> None:
    long = "d" * 120 + "/" + "x" * 100 + ".txt"
    folder = write(tmp_path / "m", **{"model.py": "x = 1\n", "ünï.txt": "é", long: "deep"})
    (tmp_path / "out").mkdir()
    with packed(folder) as (archive, _):
        unpack(archive, tmp_path / "out", Caps(bytes=1 << 20))
    assert (tmp_path / "out" / "ünï.txt").read_text() == "é"
    assert (tmp_path / "out" / long).read_text() == "deep"


def test_a_second_name_of_a_file_is_a_file_of_its_own(tmp_path: Path) -> None:
    folder = write(tmp_path / "m", **{"model.py": "x = 1\n"})
    (folder / "again.py").hardlink_to(folder / "model.py")
    (tmp_path / "out").mkdir()
    with packed(folder) as (archive, _):
        unpack(archive, tmp_path / "out", Caps(bytes=1 << 20))
    assert (tmp_path / "out" / "again.py").read_text() == "x = 1\n"
    assert (tmp_path / "out" / "model.py").read_text() == "x = 1\n"


def test_of_a_main_file_the_folder_is_taken_as_serve_takes_it(tmp_path: Path) -> None:
    folder = write(tmp_path / "m", **{"fib.py": "def fib(n): ...\n", "helper.py": ""})
    assert names(folder / "fib.py") == (["fib.py", "helper.py"], "fib.py")
    assert names(Path(f"{folder}/fib.py:fib")) == (["fib.py", "helper.py"], "fib.py:fib")


def test_of_a_package_the_whole_is_taken(tmp_path: Path) -> None:
    top = write(
        tmp_path / "algo",
        **{"__init__.py": "", "common.py": "", "fib/__init__.py": "", "fib/backend.py": ""},
    )
    whole = ["algo/__init__.py", "algo/common.py", "algo/fib/__init__.py", "algo/fib/backend.py"]
    assert names(top / "fib" / "backend.py") == (whole, "algo/fib/backend.py")
    assert names(top / "fib") == (whole, "algo/fib")
    assert names(top / "fib", "backend.py:Fib") == (whole, "algo/fib/backend.py:Fib")


def test_an_archive_is_what_it_is(tmp_path: Path) -> None:
    for suffix in ARCHIVES:
        archive = tmp_path / f"m{suffix.upper()}"
        archive.write_bytes(b"x")
        with packed(archive, "a.py") as found:
            assert found == (archive, "a.py")


@pytest.mark.parametrize(
    ("place", "main", "words"),
    [
        ("nowhere", "", "no such file"),
        ("m/notes.txt", "", "no Python file"),
        ("m/model.py", "model.py", "--main goes with a folder"),
        ("m/model.py:not a name", "", "no name of a function"),
    ],
)
def test_what_cannot_be_packed_is_said(tmp_path: Path, place: str, main: str, words: str) -> None:
    write(tmp_path / "m", **{"model.py": "", "notes.txt": ""})
    with pytest.raises((UsageError, ModelLoadError), match=words), packed(tmp_path / place, main):
        pass


def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "m", **{"model.py": ""})

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(folder / "model.py"))

    monkeypatch.setattr(tarfile.TarFile, "add", refuse)
    with pytest.raises(UsageError, match=r"model\.py cannot be packed: Permission denied"):
        data(folder)


def test_what_is_installed_is_not_packed() -> None:
    with pytest.raises(UsageError, match="json:dumps is installed"), packed(Path("json:dumps")):
        pass


def test_of_a_model_file_it_is_packed_with_what_belongs_to_it(tmp_path: Path) -> None:
    for name in ("m.onnx", "m.onnx.data", "other.onnx", "golden.jsonl"):
        (tmp_path / name).write_text(name)
    with packed(tmp_path / "m.onnx") as made, tarfile.open(made.archive) as tar:
        assert sorted(tar.getnames()) == ["golden.jsonl", "m.onnx", "m.onnx.data"]
        assert made.main == "m.onnx"
