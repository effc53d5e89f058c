"""Each example, and the model of the first tutorial as it was written, is served as it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.markdown import ROOT
from support.server import serve

EXAMPLES = ROOT / "examples"

#: Its `sleep(20)`, which stood for a slow load, is left out; the port is the platform's to choose.
FIRST_TUTORIAL = """
import modelcloud
from modelcloud.data_types import text,number,any
import time

stylize_inputs = {
  'n': number(description="模型输入")
}

stylize_outputs = {
  'result': number(description="模型输出")
}

def model1(n):
    if n == 0 or n == 1:
        return 1
    else:
        return model1(n-1) + model1(n-2)

def model2(n):
    return n

@modelcloud.setup(options={'model': text,"version":text(default="0.1.0")})
def setup(options):
    time.sleep(0)
    if options["model"]=="big":
        return model1
    else:
        return model2

@modelcloud.command('fib', inputs=stylize_inputs, outputs=stylize_outputs,description='a demo')

def classify(model, input):
    n=input["n"]
    return {"result":model(n)}

if __name__ == '__main__':
    modelcloud.run(port=${port},model_options={'model': 'big',"version":"0.0.1"},runenv="prod")
"""


@pytest.fixture(params=["the example", "the tutorial"])
def fib(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "the example":
        return EXAMPLES / "fib" / "model.py"
    (tmp_path / "model.py").write_text(FIRST_TUTORIAL, "utf-8")
    return tmp_path / "model.py"


def test_fib_is_replaced_by_a_post_and_brought_back(fib: Path) -> None:
    with serve(fib, "--option", "model=big", "--option", "version=0.0.1") as server:
        assert server.post("/fib", {"n": 10}).json() == {"result": 89}
        assert server.update(model="small").json()["success"] is True
        assert server.post("/fib", {"n": 10}).json() == {"result": 10}
        options = {
            option["name"]: option["value"] for option in server.get("/setup").json()["options"]
        }
        assert options == {"model": "small", "version": "0.0.1"}
        assert server.post("/rollback").json()["success"] is True
        assert server.post("/fib", {"n": 10}).json() == {"result": 89}


@pytest.mark.parametrize(
    ("target", "path", "body", "answer"),
    [
        ("pisqrt/server.py", "/pisqrt", {"a": 25}, {"result": 8.86226925452758}),
        (
            "inference_service",
            "/predict",
            {"type": "libsvm", "data": {"insts": "0 1:0.5 3:2\n1 1:1"}},
            {"message": "SUCCESS", "code": 0, "data": {"insts": [1.0, 2.5]}},
        ),
        (
            "algopkg/AlgoExample",
            "/predict",
            {"scores": [0.25, 0.75]},
            {"labels": [0, 1]},
        ),
    ],
    ids=["pisqrt", "inference_service", "algopkg"],
)
def test_an_example_answers(target: str, path: str, body: Any, answer: Any) -> None:
    with serve(EXAMPLES / target) as server:
        said = server.post(path, body).json()
        if "status" in said:  # of an algo_backend, whose answer has an envelope
            assert said["status"] == 1
            said = said["result"]
        assert said == answer


def test_the_fourth_tutorials_address_answers_by_query_string_too() -> None:
    with serve(EXAMPLES / "pisqrt" / "server.py") as server:
        assert server.get("/pisqrt?a=25").json() == {"result": 8.86226925452758}
