"""Models of big libraries, trained in environments of their own, served by workers that run there.

Each program prints, as its last line, the numbers that the library itself gives.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.runtime_envs import interpreter, train
from support.server import Server, serve, start

# The first test of a library also downloads it.
pytestmark = [pytest.mark.runtimes, pytest.mark.timeout(1200)]

ROWS = [[0.5] * 13, [1.0] * 13]

PADDLE = """
import json, os
import numpy as np, paddle
rng = np.random.default_rng(0)
data = rng.random((64, 13), "float32"); target = data.sum(1, keepdims=True)
x = np.array(ROWS, "float32")
"""
PADDLE_NEW = (
    PADDLE
    + """
line = paddle.nn.Linear(13, 1)
step = paddle.optimizer.SGD(0.05, parameters=line.parameters())
for _ in range(20):
    loss = ((line(paddle.to_tensor(data)) - paddle.to_tensor(target)) ** 2).mean()
    loss.backward(); step.step(); step.clear_grad()
spec = [paddle.static.InputSpec([None, 13], "float32", name="x")]
paddle.jit.save(line, "model/inference", input_spec=spec)
print(json.dumps(line(paddle.to_tensor(x)).tolist()))
"""
)
#: As `paddle.fluid` and Paddle Serving wrote it, which names inputs and outputs in a file beside.
PADDLE_OLD = (
    """
import os
os.environ["FLAGS_enable_pir_api"] = "0"
"""
    + PADDLE
    + """
paddle.enable_static()
main, startup = paddle.static.Program(), paddle.static.Program()
with paddle.static.program_guard(main, startup):
    fed = paddle.static.data("x_0", [None, 13], "float32")
    fetched = paddle.static.nn.fc(fed, 1)
runner = paddle.static.Executor(); runner.run(startup)
paddle.static.save_inference_model("model/m", [fed], [fetched], runner, program=main)
os.rename("model/m.pdmodel", "model/__model__"); os.rename("model/m.pdiparams", "model/__params__")
open("model/serving_server_conf.prototxt", "w").write(
    'feed_var {\\n  name: "x_0"\\n  alias_name: "x"\\n  is_lod_tensor: false\\n}\\n'
    'fetch_var {\\n  name: "%s"\\n  alias_name: "price"\\n}\\n' % fetched.name)
print(json.dumps(runner.run(main, feed={"x_0": x}, fetch_list=[fetched])[0].tolist()))
"""
)

TENSORFLOW = """
import json, numpy as np, tensorflow as tf
class Line(tf.Module):
    def __init__(self):
        super().__init__()
        rng = np.random.default_rng(0)
        data = rng.random((64, 13)).astype("f4")
        found, *_ = np.linalg.lstsq(data, data.sum(1, keepdims=True), rcond=None)
        self.weights = tf.Variable(found)
    @tf.function(input_signature=[tf.TensorSpec([None, 13], tf.float32, name="x")])
    def price(self, x):
        return {"price": x @ self.weights}
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def shout(self, text):
        return {"shouted": tf.strings.upper(text)}
line = Line()
tf.saved_model.save(line, "model", signatures={"serving_default": line.price, "shout": line.shout})
print(json.dumps(line.price(tf.constant(np.array(ROWS, "f4")))["price"].numpy().tolist()))
"""

TORCH = """
import json, torch
torch.manual_seed(0)
class Line(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.line = torch.nn.Linear(13, 1)
    def forward(self, x):
        return {"price": self.line(x)}
model = Line()
step = torch.optim.SGD(model.parameters(), 0.05)
data = torch.rand(64, 13); target = data.sum(1, keepdim=True)
for _ in range(20):
    step.zero_grad(); ((model(data)["price"] - target) ** 2).mean().backward(); step.step()
rows = torch.tensor(ROWS)
sizes = {"x": {0: torch.export.Dim("rows")}}
torch.export.save(torch.export.export(model, (rows,), dynamic_shapes=sizes), "model.pt2")
torch.jit.script(model.line).save("scripted.pt")
torch.save(model.state_dict(), "weights.pth")
print(json.dumps(model(rows)["price"].tolist()))
"""

MLFLOW = """
import json, mlflow.sklearn, mlflow.pyfunc
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression
data = load_diabetes(as_frame=True)
model = LinearRegression().fit(data.data, data.target)
signature = mlflow.models.infer_signature(data.data, model.predict(data.data))
mlflow.sklearn.save_model(model, "model", signature=signature)
class Doubled(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input * 2
mlflow.pyfunc.save_model("plain", python_model=Doubled())
rows = data.data[:2]
print(json.dumps([rows.to_dict("records"), model.predict(rows).tolist()]))
"""


class Trained:
    """A library's models, and what the library itself answers to `ROWS`."""

    def __init__(self, library: str, program: str, folder: Path) -> None:
        self.python = interpreter(library)
        self.folder = folder / "trained"
        printed = train(self.python, program.replace("ROWS", repr(ROWS)), self.folder)
        self.expected: Any = json.loads(printed.splitlines()[-1])

    @contextmanager
    def served(self, name: str, *flags: str) -> Iterator[Server]:
        own = ("--python", str(self.python), "--replicas", "1", "--threads", "2")
        with serve(self.folder / name, *own, *flags) as server:
            yield server


def tensors(server: Server) -> tuple[Any, Any]:
    told = server.post("/metadata", {}).json()
    return told["inputs"], told["outputs"]


def tensor(name: str, datatype: str, *shape: int) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(shape)}


def column(server: Server, name: str, rows: list[Any] = ROWS) -> list[Any]:
    """One output for rows, asked for in both forms."""
    by_rows = server.post("/predict", {"instances": rows})
    assert by_rows.status_code == 200, by_rows.text
    found = [row[name] for row in by_rows.json()["predictions"]]
    whole = server.post("/predict", {"inputs": rows}).json()["outputs"][name]
    assert found == whole
    return found


def near(values: list[list[float]]) -> list[Any]:
    return [pytest.approx(row, rel=1e-4) for row in values]


PRICE = ([tensor("x", "FP32", -1, 13)], [tensor("price", "FP32", -1, 1)])


def test_paddles_inference_format(tmp_path: Path) -> None:
    trained = Trained("paddle", PADDLE_NEW, tmp_path)
    with trained.served("model", "-o", "batch_size=4") as server:
        assert column(server, "fetch_name_0") == near(trained.expected)
        assert tensors(server)[0] == PRICE[0]
        assert server.post("/predict", {"instances": [[1] * 12]}).status_code == 400
    (trained.folder / "model" / "inference.json").write_text("{}")
    broken = start(trained.folder / "model", "--port", "0", "--python", trained.python)
    assert broken.wait() == 1
    assert "inference.json is no program of Paddle" in broken.output


def test_a_folder_of_paddle_serving_has_the_names_of_its_clients(tmp_path: Path) -> None:
    trained = Trained("paddle", PADDLE_OLD, tmp_path)
    with trained.served("model") as server:
        assert column(server, "price") == near(trained.expected)
        assert tensors(server) == PRICE


def test_tensorflows_saved_model_and_its_signatures(tmp_path: Path) -> None:
    trained = Trained("tensorflow", TENSORFLOW, tmp_path)
    with trained.served("model") as server:
        assert column(server, "price") == near(trained.expected)
        assert tensors(server) == PRICE
        changed = server.update(signature="shout")
        assert changed.status_code == 200, changed.text
        assert column(server, "shouted", ["a", "b"]) == ["A", "B"]
        wrong = server.update(signature="nope")
        assert wrong.status_code == 422
        assert "accepted: serving_default, shout" in wrong.json()["error"]
        assert column(server, "shouted", ["a"]) == ["A"], "the earlier one serves on"


def test_torchs_exported_and_scripted_models(tmp_path: Path) -> None:
    trained = Trained("torch", TORCH, tmp_path)
    with trained.served("model.pt2") as server:
        assert column(server, "price") == near(trained.expected)
        assert tensors(server) == PRICE
    told = '[{"name": "x", "datatype": "FP32", "shape": [-1, 13]}]'
    with trained.served("scripted.pt", "-o", f"inputs={told}") as server:
        assert column(server, "output") == near(trained.expected)
        assert tensors(server) == (PRICE[0], [tensor("output", "FP32", -1, 1)])
    refused = start(trained.folder / "weights.pth", "--port", "0", "--python", trained.python)
    assert refused.wait() == 1
    assert "weights.pth holds no model that runs by itself" in refused.output


def test_mlflows_models_with_and_without_a_signature(tmp_path: Path) -> None:
    trained = Trained("mlflow", MLFLOW, tmp_path)
    rows, expected = trained.expected
    with trained.served("model") as server:
        answer = server.post("/predict", {"instances": rows}).json()
        assert [row["prediction"] for row in answer["predictions"]] == pytest.approx(expected)
        assert tensors(server)[0][0] == tensor("age", "FP64", -1)
    with trained.served("plain") as server:
        answer = server.post("/predict", {"instances": [{"a": 1.5}, {"a": 2}]}).json()
        assert answer == {"predictions": [{"a": 3.0}, {"a": 4.0}]}
        assert tensors(server) == (None, None)


def test_a_library_that_is_not_there_is_named_with_what_brings_it(tmp_path: Path) -> None:
    (tmp_path / "model.pt2").write_bytes(b"PK")
    refused = start(tmp_path, "--port", "0", "--python", interpreter("mlflow"))
    assert refused.wait() == 1
    assert "pip install 'modelcloud[torch]'" in refused.output
