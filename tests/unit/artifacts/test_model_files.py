"""Model files without code are staged whole, by a server and by the platform alike."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from modelcloud.artifacts import snapshot
from modelcloud.artifacts.stage import Staged, StageRequest, stage
from modelcloud.artifacts.tree import Caps
from modelcloud.errors import ModelLoadError, UsageError
from modelcloud.types import MANIFEST

PICKLE = pickle.dumps(1)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = (tmp_path / "models").resolve()
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def write(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PICKLE if path.suffix == ".pkl" else name.encode())


def manifest(folder: str | Path) -> dict[str, object]:
    found: dict[str, object] = json.loads(Path(folder, MANIFEST).read_text())
    return found


def staged(tmp_path: Path, source: Path, main: str = "") -> Staged:
    work = tmp_path / f"work-{len(list(tmp_path.iterdir()))}"
    work.mkdir()
    caps = Caps(bytes=1 << 20)
    return stage(StageRequest(source=str(source), work=str(work), caps=caps, main=main))


def test_a_folder_of_a_model_is_taken_whole(folder: Path, tmp_path: Path) -> None:
    write(folder, "m/saved_model.pb", "m/variables/weights.data", "m/assets/words.txt")
    write(folder, "m/.hidden", "m/__pycache__/x.pyc", "m/golden.jsonl")
    taken = snapshot.take("m", tmp_path / "staged")
    assert list(taken.files) == [
        "assets/words.txt", "golden.jsonl", "saved_model.pb", "variables/weights.data",
    ]  # fmt: skip
    assert (taken.root, taken.main) == (folder / "m", "saved_model.pb")
    told = manifest(taken.folder)
    assert (told["runtime"], told["root"]) == ("tensorflow", "")
    assert taken.companion("golden.jsonl") is not None


def test_of_a_named_file_only_what_belongs_to_it_is_taken(folder: Path, tmp_path: Path) -> None:
    write(folder, "a.onnx", "a.onnx.data", "b.onnx", "warmup.jsonl", "requirements.txt", "big.bin")
    taken = snapshot.take("a.onnx", tmp_path / "staged")
    assert list(taken.files) == ["a.onnx", "a.onnx.data", "requirements.txt", "warmup.jsonl"]
    artifact = staged(tmp_path, folder / "a.onnx")
    assert manifest(artifact.folder)["files"] == dict(taken.files)
    assert (artifact.main, artifact.runtime, artifact.pickled) == ("a.onnx", "onnx", False)


def test_equal_files_are_one_artifact_wherever_they_lay(folder: Path, tmp_path: Path) -> None:
    write(folder, "one/model.onnx", "two/model.onnx")
    (folder / "two/model.onnx").write_bytes((folder / "one/model.onnx").read_bytes())
    first = snapshot.take("one", tmp_path / "staged")
    assert snapshot.take("two", tmp_path / "staged").digest == first.digest
    assert staged(tmp_path, folder / "one").digest == first.digest


def test_what_is_edited_later_is_not_what_was_taken(folder: Path, tmp_path: Path) -> None:
    write(folder, "model.onnx")
    taken = snapshot.take("model.onnx", tmp_path / "staged")
    (folder / "model.onnx").write_bytes(b"other")
    assert (taken.folder / "model.onnx").read_bytes() == b"model.onnx"
    assert snapshot.verify(taken.folder).digest == taken.digest


def test_an_archive_with_a_folder_around_a_model_is_laid_out(folder: Path, tmp_path: Path) -> None:
    write(folder, "top/inner/model.pkl", "top/inner/metrics.json")
    artifact = staged(tmp_path, folder)
    assert (artifact.main, artifact.runtime, artifact.pickled) == ("model.pkl", "sklearn", True)
    assert manifest(artifact.folder)["module"] == ""
    named = staged(tmp_path, folder, "top/inner/model.pkl")
    assert (named.main, named.runtime) == ("top/inner/model.pkl", "sklearn")


def test_code_beside_a_model_is_what_is_served(folder: Path, tmp_path: Path) -> None:
    write(folder, "model.py", "weights.onnx")
    assert staged(tmp_path, folder).runtime == ""
    assert list(snapshot.take(".", tmp_path / "staged").files) == ["model.py"]
    assert staged(tmp_path, folder, "weights.onnx").runtime == "onnx"


def test_of_several_models_one_must_be_named(folder: Path, tmp_path: Path) -> None:
    write(folder, "a.onnx", "b.onnx")
    with pytest.raises(ModelLoadError, match="several models"):
        snapshot.take(".", tmp_path / "staged")
    with pytest.raises(UsageError, match="several models"):
        staged(tmp_path, folder)


def test_a_folder_of_code_is_taken_whole_when_asked_for(folder: Path, tmp_path: Path) -> None:
    write(folder, "pkg/__init__.py", "pkg/model.py", "pkg/weights.bin", "pkg/stamp", "other.bin")
    taken = snapshot.take("pkg", tmp_path / "staged", whole=True, without={"stamp"})
    assert list(taken.files) == ["pkg/__init__.py", "pkg/model.py", "pkg/weights.bin"]
    assert manifest(taken.folder)["root"] == ""
    assert manifest(taken.folder)["module"] == "pkg.model"


@pytest.mark.parametrize("name", ["outside", MANIFEST])
def test_what_cannot_be_taken_is_refused_in_words(folder: Path, tmp_path: Path, name: str) -> None:
    write(folder, "m/model.onnx", "secret")
    if name == MANIFEST:
        write(folder, f"m/{MANIFEST}")
    else:
        (folder / "m" / name).symlink_to(folder / "secret")
    with pytest.raises(ModelLoadError, match=f"{name}.*accepted"):
        snapshot.take("m", tmp_path / "staged")
    assert not list((tmp_path / "staged").iterdir())
