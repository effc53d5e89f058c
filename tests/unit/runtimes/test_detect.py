"""What a file or folder is, without loading it."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from modelcloud.errors import ModelLoadError
from modelcloud.runtimes.detect import RUNTIMES, detect, is_pickle_based, parts_of
from modelcloud.runtimes.model import runtime

PICKLE = pickle.dumps({"a": 1})
XGBOOST = json.dumps({"learner": {"attributes": {}}, "version": [3, 0, 0]}).encode()
UBJ = b"{L\x00\x00\x00\x00\x00\x00\x00\x07learner{L"
LIGHTGBM = b"tree\nversion=v4\n"

FILES = [
    ("m.onnx", b"", "onnx"),
    ("m.joblib", b"", "sklearn"),
    ("m.skops", b"PK", "sklearn"),
    ("m.pkl", PICKLE, "sklearn"),
    ("m.pickle", PICKLE, "sklearn"),
    ("m.json", XGBOOST, "xgboost"),
    ("m.json", b'{"version":[3,0,0],"learner":{}}', "xgboost"),
    ("m.ubj", UBJ, "xgboost"),
    ("m.bst", UBJ, "xgboost"),
    ("m.txt", LIGHTGBM, "lightgbm"),
    ("m.txt", LIGHTGBM.replace(b"\n", b"\r\n"), "lightgbm"),
    ("m.pt", b"PK", "torch"),
    ("m.pt2", b"PK", "torch"),
    ("m.pdmodel", b"", "paddle"),
    ("saved_model.pb", b"", "tensorflow"),
    ("MLmodel", b"", "mlflow"),
    ("__model__", b"", "paddle"),
]
NONE = [
    ("m.pkl", b"\x85\xa4type\xb5modelcloud-notebook-1"),
    ("vocabulary.json", b'{"tree": 1}'),
    ("requirements.txt", b"treelite\n"),
    ("m.bin", b"\x00" * 10),
    ("empty.json", b""),
    ("model.py", LIGHTGBM),
    ("m.tar.gz", b"\x1f\x8b"),
]


@pytest.mark.parametrize(("name", "data", "expected"), FILES)
def test_a_file_is_known_by_its_name_or_first_bytes(
    tmp_path: Path, name: str, data: bytes, expected: str
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    found = detect(path)
    assert found is not None
    assert (found.runtime, found.main) == (expected, path)
    assert detect(tmp_path) == found, "and so is the folder that holds it"


@pytest.mark.parametrize(("name", "data"), NONE)
def test_other_files_are_no_models(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    assert detect(path) is None
    assert detect(tmp_path) is None
    assert not is_pickle_based(tmp_path)


def test_every_runtime_has_an_adapter_that_needs_no_library_to_be_found() -> None:
    assert {name for _, _, name in FILES} == set(RUNTIMES)
    for name in RUNTIMES:
        adapter = runtime(name)
        assert callable(adapter.peek)
        assert callable(adapter.load)


def test_paddles_json_is_one_with_its_weights_beside(tmp_path: Path) -> None:
    program = tmp_path / "inference.json"
    program.write_bytes(b'{"base_code": {"magic": "pir"}}')
    assert detect(program) is None
    (tmp_path / "inference.pdiparams").touch()
    found = detect(tmp_path)
    assert found is not None
    assert (found.runtime, found.main) == ("paddle", program)


def test_of_several_models_one_is_named_model_or_the_user_must_say(tmp_path: Path) -> None:
    for name in ("scaler.joblib", "trees.joblib"):
        (tmp_path / name).touch()
    with pytest.raises(ModelLoadError, match=r"several models: scaler\.joblib, trees\.joblib"):
        detect(tmp_path)
    (tmp_path / "model.joblib").touch()
    found = detect(tmp_path)
    assert found is not None
    assert found.main.name == "model.joblib"


def test_a_file_that_names_a_folder_outweighs_what_lies_in_it(tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(PICKLE)
    (tmp_path / "MLmodel").touch()
    found = detect(tmp_path)
    assert found is not None
    assert found.runtime == "mlflow"


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("m.joblib", b"", True),
        ("m.pkl", PICKLE, True),
        ("m.pt", b"", True),
        ("MLmodel", b"", True),
        ("m.skops", b"", False),
        ("m.onnx", PICKLE, False),
        ("m.ubj", UBJ, False),
        ("saved_model.pb", b"", False),
    ],
)
def test_what_runs_code_of_its_own_when_loaded_is_told(
    tmp_path: Path, name: str, data: bytes, expected: bool
) -> None:
    (tmp_path / name).write_bytes(data)
    assert is_pickle_based(tmp_path / name) is expected
    assert is_pickle_based(tmp_path) is expected


def test_what_belongs_to_a_named_file_shares_its_name_up_to_a_dot(tmp_path: Path) -> None:
    names = ["m.onnx", "m.onnx.data", "m.pdiparams", "m.py", "m2.onnx", "other.bin"]
    for name in names:
        (tmp_path / name).touch()
    assert [p.name for p in parts_of(tmp_path / "m.onnx")] == names[:3]
