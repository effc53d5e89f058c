"""Model files of small libraries, trained here, answer as the library itself does."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_iris
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline

from modelcloud.dataplane.commands import BoundCommand, bind
from modelcloud.errors import InvalidInput, ModelLoadError
from modelcloud.runtimes.detect import detect
from modelcloud.sdk.model_file import ModelFileBackend
from modelcloud.sdk.options import complete_options
from support.onnx_model import write_model

FEATURES = 10


@pytest.fixture(scope="module")
def table() -> tuple[Any, Any]:
    """Real tabular data: 442 rows of 10 numbers."""
    data, target = load_diabetes(return_X_y=True)
    return data.astype("f4"), target


def backend_of(path: Path) -> ModelFileBackend:
    found = detect(path)
    assert found is not None
    return ModelFileBackend(*found)


class Served:
    """A loaded backend, asked as a worker asks it."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.backend = backend_of(path)
        self.before = self.backend.signature
        self.backend.load(complete_options(self.before, options))
        self.commands: list[BoundCommand] = bind(self.backend, max_body=1 << 20, runenv="dev")

    def ask(self, body: Any, command: str = "predict") -> Any:
        (bound,) = (one for one in self.commands if one.command.name == command)
        status, _, answer = bound.run(0, msgspec.json.encode(body))
        assert status == 200, answer
        return msgspec.json.decode(answer)

    def many(self, *bodies: Any) -> list[tuple[int, Any]]:
        requests = [(0, msgspec.json.encode(body)) for body in bodies]
        answers = self.commands[0].run_batch(requests)
        return [(status, msgspec.json.decode(answer)) for status, _, answer in answers]

    @property
    def tensors(self) -> tuple[Any, Any]:
        found = self.ask({}, "metadata")
        return found["inputs"], found["outputs"]


def tensor(name: str, datatype: str | None, *shape: int) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(shape)}


def xgboost_files(folder: Path, data: Any, target: Any) -> Any:
    import xgboost

    booster = xgboost.train({}, xgboost.DMatrix(data, target), 5)
    booster.save_model(folder / "model.json")
    booster.save_model(folder / "model.ubj")
    return booster.inplace_predict(data[:3])


def lightgbm_file(folder: Path, data: Any, target: Any) -> Any:
    import lightgbm

    booster = lightgbm.train({"verbose": -1}, lightgbm.Dataset(data, target), 5)
    booster.save_model(folder / "model.txt")
    return booster.predict(data[:3])


@pytest.mark.parametrize(
    ("make", "name", "inputs", "output"),
    [
        (xgboost_files, "model.json", tensor("x", "FP32", -1, FEATURES),
         tensor("prediction", "FP32", -1)),
        (xgboost_files, "model.ubj", tensor("x", "FP32", -1, FEATURES),
         tensor("prediction", "FP32", -1)),
        (lightgbm_file, "model.txt", tensor("x", "FP64", -1, FEATURES),
         tensor("prediction", "FP64", -1)),
    ],
)  # fmt: skip
def test_boosters_answer_rows_tensors_and_missing_values(
    tmp_path: Path,
    table: tuple[Any, Any],
    make: Callable[..., Any],
    name: str,
    inputs: Any,
    output: Any,
) -> None:
    data, target = table
    expected = make(tmp_path, data, target)
    served = Served(tmp_path / name)
    rows = data[:3].tolist()
    answer = served.ask({"instances": rows})
    assert [row["prediction"] for row in answer["predictions"]] == pytest.approx(expected.tolist())
    assert served.ask({"inputs": {"x": rows}})["outputs"]["prediction"] == pytest.approx(
        expected.tolist()
    )
    assert served.ask({"instances": [[None] * FEATURES]})["predictions"]
    assert served.tensors == ([inputs], [output])


def test_a_boosters_named_features_are_columns(tmp_path: Path) -> None:
    import lightgbm

    data = load_iris(as_frame=True)
    data.data.columns = ["a", "b", "c", "d"]
    booster = lightgbm.train(
        {"verbose": -1, "objective": "multiclass", "num_class": 3},
        lightgbm.Dataset(data.data, data.target), 3,
    )  # fmt: skip
    booster.save_model(tmp_path / "model.txt")
    told = backend_of(tmp_path).signature.commands[0].body.input_schema
    assert list(told["oneOf"][0]["properties"]["inputs"]["properties"]) == ["a", "b", "c", "d"]
    served = Served(tmp_path)
    row = data.data.iloc[100]
    expected = booster.predict(data.data.iloc[[100]])[0].tolist()
    reversed_row = {name: float(row[name]) for name in ["d", "c", "b", "a"]}
    for given in (reversed_row, row.tolist()):
        (answer,) = served.ask({"instances": [given]})["predictions"]
        assert answer["prediction"] == pytest.approx(expected)


def test_a_classifier_on_a_table_gives_labels_and_probabilities(tmp_path: Path) -> None:
    import joblib

    iris = load_iris(as_frame=True)
    names = iris.target_names[iris.target]
    model = LogisticRegression(max_iter=500).fit(iris.data, names)
    joblib.dump(model, tmp_path / "model.joblib")
    served = Served(tmp_path)
    (answer,) = served.ask({"instances": [iris.data.iloc[0].to_dict()]})["predictions"]
    assert answer["label"] == "setosa"
    assert answer["probability"] == pytest.approx(model.predict_proba(iris.data[:1])[0].tolist())
    inputs, outputs = served.tensors
    assert [one["name"] for one in inputs] == list(iris.data.columns)
    assert outputs == [tensor("label", "BYTES", -1), tensor("probability", "FP64", -1, 3)]


@pytest.mark.parametrize("name", ["model.pkl", "model.skops"])
def test_a_regression_of_a_matrix(tmp_path: Path, table: tuple[Any, Any], name: str) -> None:
    import skops.io

    data, target = table
    model = LinearRegression().fit(data, target)
    if name.endswith(".skops"):
        skops.io.dump(model, tmp_path / name)
    else:
        (tmp_path / name).write_bytes(pickle.dumps(model))
    served = Served(tmp_path)
    answer = served.ask({"inputs": data[:2].tolist()})
    assert answer["outputs"]["prediction"] == pytest.approx(model.predict(data[:2]).tolist())
    assert served.tensors[0] == [tensor("x", "FP64", -1, FEATURES)]


def test_a_pipeline_of_texts_takes_texts(tmp_path: Path) -> None:
    model = make_pipeline(TfidfVectorizer(), LogisticRegression())
    model.fit(["good movie", "bad movie"], [1, 0])
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(model))
    answer = Served(tmp_path).ask({"instances": ["a good one", "bad"]})
    assert [row["label"] for row in answer["predictions"]] == [1, 0]


def test_a_skops_file_with_an_unusual_type_needs_it_named(tmp_path: Path) -> None:
    import skops.io
    from sklearn.preprocessing import FunctionTransformer

    skops.io.dump(FunctionTransformer(msgspec.json.encode), tmp_path / "model.skops")
    with pytest.raises(ModelLoadError, match=r"not trusted: .*accepted: .*trusted_types"):
        Served(tmp_path)
    unknown = skops.io.get_untrusted_types(file=tmp_path / "model.skops")
    Served(tmp_path, trusted_types=unknown)


def test_onnx_tells_its_tensors_before_it_is_loaded(tmp_path: Path) -> None:
    write_model(tmp_path, 3)
    served = Served(tmp_path)
    properties = served.before.commands[0].body.output_schema["oneOf"][0]["properties"]
    assert list(properties["outputs"]["properties"]) == ["y"]
    assert served.ask({"instances": [1.0, 2.0]}) == {"predictions": [{"y": 3003.0}, {"y": 3006.0}]}
    assert served.tensors == ([tensor("x", "FP32", -1)], [tensor("y", "FP32", -1)])
    assert served.before.commands[0].body.example == {"instances": [{"x": 0.0}]}


def test_onnx_of_a_classifier_may_give_maps(tmp_path: Path) -> None:
    from skl2onnx import to_onnx

    data, target = load_iris(return_X_y=True)
    model = LogisticRegression(max_iter=500).fit(data, target)
    onnx = to_onnx(model, np.zeros((1, 4), "f4"))
    (tmp_path / "model.onnx").write_bytes(onnx.SerializeToString())
    (answer,) = Served(tmp_path).ask({"instances": [data[0].tolist()]})["predictions"]
    assert answer["output_label"] == 0
    assert answer["output_probability"]["0"] > 0.9


def test_requests_are_joined_when_the_option_says_so(tmp_path: Path) -> None:
    write_model(tmp_path, 1)
    assert Served(tmp_path).backend.signature.commands[0].batch is None
    served = Served(tmp_path, batch_size=8)
    assert served.backend.signature.to_dict()["commands"][0]["maxBatchSize"] == 8
    answers = served.many(
        {"instances": [1]}, {"inputs": ["a"]}, {"inputs": {"x": [2, 3]}}, {"inputs": []}
    )
    assert [status for status, _ in answers] == [200, 400, 200, 400]
    assert answers[0][1] == {"predictions": [{"y": 1001.0}]}
    assert answers[2][1] == {"outputs": {"y": [1002.0, 1003.0]}}


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("m.onnx", b""),
        ("m.onnx", b"\x08\x08\x3a\xff\xff\x03"),
        ("m.onnx", b"\x3a\x05abc"),
        ("m.onnx", b"\xff" * 40),
        ("m.joblib", b"\x80\x04"),
        ("m.pkl", b"\x80\x04}."),
        ("m.skops", b"no zip"),
        ("m.json", b'{"learner": {"gradient'),
        ("m.txt", b"tree\nversion=v4\n"),
    ],
)
def test_a_damaged_file_is_one_clear_error(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(ModelLoadError) as caught:
        Served(path)
    assert name in caught.value.message or "the file holds" in caught.value.message


def test_a_missing_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path, 1)
    backend = backend_of(tmp_path)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModelLoadError, match=r"pip install 'modelcloud\[onnx\]'"):
        backend.load(complete_options(backend.signature, {}))


def test_a_model_that_cannot_batch_says_so(tmp_path: Path) -> None:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    model = LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0])
    onnx = convert_sklearn(model, initial_types=[("x", FloatTensorType([2, 1]))])
    (tmp_path / "model.onnx").write_bytes(onnx.SerializeToString())
    assert Served(tmp_path).ask({"inputs": [[0], [1]]})
    with pytest.raises(ModelLoadError, match="batch_size"):
        Served(tmp_path, batch_size=2)


def test_a_body_that_does_not_fit_names_what_the_model_takes(tmp_path: Path) -> None:
    write_model(tmp_path, 1)
    handler = Served(tmp_path).backend.handler("predict")
    with pytest.raises(InvalidInput, match=r"x: got shape \[1, 1\]; accepted: FP32 of shape"):
        handler({"inputs": [[1]]})
