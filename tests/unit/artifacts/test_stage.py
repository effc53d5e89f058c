"""What becomes of an archive or a folder: its root, its main file, what is left out, its digest."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from modelcloud.artifacts.snapshot import verify
from modelcloud.artifacts.stage import Staged, StageRequest, stage
from modelcloud.artifacts.tree import Caps
from modelcloud.errors import ModelcloudError, TooLarge, UsageError
from modelcloud.types import MANIFEST

MODEL = "def answer() -> int: return 42\n"


class Bench:
    """A folder to write sources to, and to stage them in."""

    def __init__(self, folder: Path) -> None:
        self.source = folder / "source"
        self.source.mkdir()
        self._folder = folder
        self._runs = 0

    def write(self, *names: str, text: str = MODEL) -> Path:
        for name in names:
            path = self.source / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return self.source

    def packed(self, top: str = "") -> Path:
        """The source as a tar, below a folder `top`."""
        path = self._folder / "model.tar"
        with tarfile.open(path, "w") as tar:
            tar.add(self.source, arcname=top or ".")
        return path

    def stage(self, source: Path, main: str = "", **given: Any) -> Staged:
        self._runs += 1
        work = self._folder / f"work-{self._runs}"
        work.mkdir()
        caps = Caps(bytes=100_000, entries=40, depth=5)
        given = {"caps": caps, **given}
        return stage(StageRequest(source=str(source), work=str(work), main=main, **given))

    def refuses(self, source: Path, words: str, main: str = "", **given: Any) -> str:
        with pytest.raises(ModelcloudError) as refused:
            self.stage(source, main, **given)
        assert words in refused.value.message
        assert str(self._folder) not in refused.value.message
        return refused.value.message


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def manifest(staged: Staged) -> dict[str, Any]:
    text = Path(staged.folder, MANIFEST).read_bytes()
    assert hashlib.sha256(text).hexdigest() == staged.digest
    found: dict[str, Any] = json.loads(text)
    return found


def test_a_folder_an_archive_and_an_archive_with_one_folder_around_it_are_the_same_artifact(
    bench: Bench,
) -> None:
    bench.write("model.py", "data/weights.txt", "requirements.txt")
    staged = bench.stage(bench.source)
    assert manifest(staged) == {
        "root": "",
        "main": "model.py",
        "module": "model",
        "name": "",
        "runtime": "",
        "files": dict.fromkeys(
            ["data/weights.txt", "model.py", "requirements.txt"],
            hashlib.sha256(MODEL.encode()).hexdigest(),
        ),
    }
    assert staged.files == 3
    assert staged.size == 3 * len(MODEL)
    assert bench.stage(bench.packed()).digest == staged.digest
    assert bench.stage(bench.packed("mymodel")).digest == staged.digest
    assert bench.stage(bench.packed("some/where")).digest == staged.digest


def test_the_digest_does_not_depend_on_where_it_came_from(bench: Bench, tmp_path: Path) -> None:
    bench.write("model.py")
    first = bench.stage(bench.source).digest
    bench.source.rename(tmp_path / "elsewhere")
    assert bench.stage(tmp_path / "elsewhere").digest == first


def test_an_artifact_is_read_only_and_whole(bench: Bench, tmp_path: Path) -> None:
    bench.write("model.py", "data/weights.txt")
    staged = bench.stage(bench.packed())
    folder = Path(staged.folder).rename(tmp_path / staged.digest)
    assert {oct(path.stat().st_mode & 0o777) for path in folder.rglob("*") if path.is_file()} == {
        "0o440"
    }
    assert oct((folder / "data").stat().st_mode & 0o777) == "0o550"
    assert verify(folder).digest == staged.digest


def test_caches_environments_and_hidden_files_are_left_out_of_both(bench: Bench) -> None:
    bench.write("model.py")
    alone = bench.stage(bench.source).digest
    bench.write(
        "__pycache__/model.cpython-311.pyc", ".git/config", ".env", ".venv/x.py", "._model.py"
    )
    bench.write("env/pyvenv.cfg", "env/lib/thing.py", "node_modules/x.js")
    assert bench.stage(bench.source).digest == alone
    assert bench.stage(bench.packed("m")).digest == alone


def test_a_package_keeps_its_folder(bench: Bench) -> None:
    bench.write(
        "Algo/__init__.py", "Algo/backend.py", "Algo/deep/__init__.py", "Algo/deep/model.py"
    )
    for staged in (
        bench.stage(bench.source / "Algo"),
        bench.stage(bench.packed()),
        bench.stage(bench.source, "Algo/backend.py"),
        bench.stage(bench.source / "Algo" / "backend.py"),
    ):
        assert manifest(staged)["main"] == "Algo/backend.py"
        assert manifest(staged)["module"] == "Algo.backend"
        assert "Algo/deep/model.py" in manifest(staged)["files"]
    inner = bench.stage(bench.source / "Algo" / "deep", root=str(bench.source))
    assert manifest(inner)["module"] == "Algo.deep.model"


def test_nothing_is_taken_from_beyond_the_allowed_root(bench: Bench) -> None:
    bench.write("Algo/__init__.py", "Algo/deep/__init__.py", "Algo/deep/model.py")
    staged = bench.stage(bench.source / "Algo" / "deep", root=str(bench.source / "Algo" / "deep"))
    assert set(manifest(staged)["files"]) == {"deep/__init__.py", "deep/model.py"}


def test_a_main_file_and_function_may_be_named(bench: Bench) -> None:
    bench.write("src/serve.py", "weights.txt")
    staged = bench.stage(bench.packed("top"), "src/serve.py:answer")
    assert manifest(staged) | {"files": 0} == {
        "root": "", "main": "src/serve.py", "module": "serve", "name": "answer",
        "runtime": "", "files": 0,
    }  # fmt: skip
    assert "weights.txt" in manifest(staged)["files"]
    assert manifest(bench.stage(bench.source / "src" / "serve.py"))["main"] == "serve.py"


@pytest.mark.parametrize(
    ("main", "words"),
    [
        ("", "there is no main file; at the top are: 'serve.py', 'weights.txt'"),
        ("model.py", "there is no 'model.py'"),
        ("serve.py:not a name", "is no name of a function"),
        ("../serve.py", "leads out"),
        ("/serve.py", "absolute"),
        ("weights.txt", "no Python file"),
    ],
)
def test_a_main_file_that_cannot_be_is_refused_with_what_is_accepted(
    bench: Bench, main: str, words: str
) -> None:
    bench.write("serve.py", "weights.txt")
    bench.refuses(bench.packed(), words, main)


def test_two_main_files_are_one_too_many(bench: Bench) -> None:
    bench.write("model.py", "backend.py")
    bench.refuses(bench.source, "both a model.py and a backend.py")


def test_a_manifest_of_ones_own_at_the_top_is_refused(bench: Bench) -> None:
    bench.write("model.py", "manifest.json")
    bench.refuses(bench.source, "the server's own")


def test_a_link_inside_gives_its_file_and_one_that_leads_out_is_refused(
    bench: Bench, tmp_path: Path
) -> None:
    bench.write("model.py", "v3.bin")
    (bench.source / "current.bin").symlink_to("v3.bin")
    assert "current.bin" in manifest(bench.stage(bench.source))["files"]
    secret = tmp_path / "secret"
    secret.write_text("secret")
    for target in (secret, Path("../secret"), Path("nowhere"), Path("loop")):
        link = bench.source / "loop"
        link.symlink_to(target)
        bench.refuses(bench.source, "a link that leads out")
        link.unlink()
    (bench.source / "folder").symlink_to(bench.source)
    bench.refuses(bench.source, "")


def test_a_link_put_in_the_way_while_it_copies_is_not_followed(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.write("model.py", "data/weights.bin")
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "weights.bin").write_text("secret")
    listed = os.scandir

    def then_swap(folder: int) -> Any:
        with listed(folder) as entries:
            found = list(entries)
        data = bench.source / "data"
        data.rename(tmp_path / "moved")
        data.symlink_to(tmp_path / "private")
        return nullcontext(found)

    monkeypatch.setattr("modelcloud.artifacts.copy_folder.os.scandir", then_swap)
    bench.refuses(bench.source, "'data' cannot be read")


def test_a_pipe_in_a_folder_is_refused_and_not_waited_for(bench: Bench) -> None:
    bench.write("model.py")
    os.mkfifo(bench.source / "pipe")
    bench.refuses(bench.source, "'pipe' is no regular file")


def test_a_folder_over_a_cap_is_refused(bench: Bench) -> None:
    bench.write("model.py", text="x = 1\n" * 20_000)
    with pytest.raises(TooLarge, match="more than 100000 bytes"):
        bench.stage(bench.source)
    bench.write("model.py")
    bench.write(*(f"{n}.txt" for n in range(50)))
    with pytest.raises(TooLarge, match="more than 40 files"):
        bench.stage(bench.source)


def test_a_package_right_at_the_top_of_an_archive_is_served_as_plain_files(bench: Bench) -> None:
    bench.write("__init__.py", "model.py")
    assert manifest(bench.stage(bench.packed()))["module"] == "model"


def test_a_source_that_is_no_archive_is_refused(bench: Bench) -> None:
    bench.write("notes.txt")
    with pytest.raises(UsageError, match="this is no archive"):
        bench.stage(bench.source / "notes.txt")


def test_an_archive_whose_header_lies_about_a_size_is_refused(bench: Bench, tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo("model.py")
        info.size = 10
        tar.addfile(info, io.BytesIO(b"x" * 10))
    path = tmp_path / "lies.tar"
    header = bytearray(out.getvalue())
    header[124:136] = b"77777777777\0"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    path.write_bytes(header)
    bench.refuses(path, "")


@pytest.mark.parametrize("own", ["", '{"inputs": {"n": 1}, "expected": 1}'])
@pytest.mark.parametrize("below", ["", "pack"])
def test_further_golden_requests_stand_beside_the_main_file_after_its_own(
    bench: Bench, own: str, below: str
) -> None:
    bench.write("model.py")
    if own:
        bench.write("golden.jsonl", text=own)
    further = '{"inputs": {"n": 2}, "expected": 2}\n'
    plain = bench.stage(bench.packed(below))
    staged = bench.stage(bench.packed(below), golden=further)
    lines = Path(staged.folder, "golden.jsonl").read_text().splitlines()
    assert lines == [*([own] if own else []), further.strip()]
    assert staged.digest != plain.digest, "what a version is held to is a part of it"
    data = Path(staged.folder, "golden.jsonl").read_bytes()
    assert manifest(staged)["files"]["golden.jsonl"] == hashlib.sha256(data).hexdigest()
