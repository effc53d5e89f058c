"""Model files without code are versions of the platform like any other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from support.onnx_model import write_model
from support.server import DEADLINE_S
from support.up import Up, up


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model in two ONNX files, and a folder of scikit-learn's."""
    folder = tmp_path_factory.mktemp("models")
    write_model(folder / "onnx", 2)
    iris = load_iris(as_frame=True)
    (folder / "iris").mkdir()
    model = LogisticRegression(max_iter=500).fit(iris.data, iris.target)
    joblib.dump(model, folder / "iris" / "model.joblib")
    (folder / "iris" / "metrics.json").write_text('{"accuracy": 0.97}')
    return folder


@pytest.fixture(scope="module")
def platform(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with up(tmp_path_factory.mktemp("platform") / "data", "--root", models) as running:
        yield running


def deployed(platform: Up, service: str, path: Path, **fields: Any) -> dict[str, Any]:
    """The version of what is at a path, registered and online."""
    version: dict[str, Any] = platform.admin.register(
        service, path=str(path), group="admin", **fields
    )
    begun = platform.admin.deploy(service, version["version"], instance_type="unlimited")
    ended = platform.admin.wait(begun["rollout"]["id"], timeout_s=DEADLINE_S)
    assert ended["state"] == "succeeded", ended
    return version


def test_an_onnx_file_is_registered_with_its_tensors_and_serves(platform: Up, models: Path) -> None:
    version = deployed(platform, "line", models / "onnx")
    assert (version["runtime"], version["main"]) == ("onnx", "model.onnx")
    predict, metadata = version["signature"]["commands"]
    assert metadata["name"] == "metadata"
    assert predict["example"] == {"instances": [{"x": 0.0}]}, "told by the file, nothing was loaded"
    answer = platform.predict("line", {"instances": [1.0]}).json()
    assert answer == {"message": "SUCCESS", "code": 0, "data": {"predictions": [{"y": 2002.0}]}}
    refused = platform.predict("line", {"instances": ["a"]})
    assert (refused.status_code, refused.json()["code"]) == (400, 400)


def test_a_folder_of_scikit_learn_is_registered_and_serves(platform: Up, models: Path) -> None:
    version = deployed(platform, "iris", models / "iris")
    assert (version["runtime"], version["main"]) == ("sklearn", "model.joblib")
    assert version["metrics"] == {"accuracy": 0.97}
    answer = platform.predict("iris/1", {"instances": [[5.1, 3.5, 1.4, 0.2]]}).json()
    assert answer["data"]["predictions"][0]["label"] == 0
    told = platform.client.post(f"{platform.url}/iris/metadata", json={}).json()
    assert told["inputs"][0] == {"name": "sepal length (cm)", "datatype": None, "shape": [-1]}


def test_an_option_of_a_runtime_is_an_option_of_the_version(platform: Up, models: Path) -> None:
    version = deployed(platform, "batched", models / "onnx", options={"batch_size": 16})
    assert version["options"] == {"batch_size": 16}
    answer = platform.predict("batched", {"inputs": {"x": [1.0]}}).json()
    assert answer["data"] == {"outputs": {"y": [2002.0]}}
