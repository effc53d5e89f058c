"""The class styles: InferenceService, and the algo backend of `_model_init`/`_model_inference`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from modelcloud.errors import ModelLoadError, UsageError
from modelcloud.sdk.contract import CallKind
from support.projects import Project

EXAMPLES = Path(__file__).parents[3] / "examples"

#: The fifth seed's template, with a place for what its user adds.
TEMPLATE = """
import sys, os, socket, time, traceback

class algo_backend(object):

    def __init__(self, model_path):
        try:
            self.res = None
            self.info_msg = "Result from {}".format(socket.gethostname())
            if len(model_path) == 0:
                self._model_init()
                print("[Model Initialized Successfully] No model path specified")
            else:
                model_info_lst = model_path.split(',')
                modelzoo_path = model_info_lst.pop(0).strip()
                model_path_lst = [os.path.join(modelzoo_path, model.strip()) for model in model_info_lst if len(model) != 0]
                for p in model_path_lst:
                    assert os.path.exists(p) == True, "Model Not Found"
                self._model_init(model_path_lst)
                print("[Model Initialized Successfully] load model from : {}".format(model_path_lst))
        except Exception:
            print("[Model Initialized Failed]:")
            traceback.print_exc()

    def _model_init(self, model_path_lst=None):
        %(init)s

    def _model_inference(self, param_dict):
        return param_dict["x"] * 2

    async def __call__(self, starlette_request):
        try:
            param_dict = await starlette_request.json()
            self.res = self._model_inference(param_dict)
            return {'status': 1, 'result': self.res, 'info':self.info_msg}
        except Exception:
            error_info = traceback.format_exc()
            return {'status': 0, 'info':self.info_msg + error_info}
"""  # noqa: E501 — as its users have it


class FakeRequest:
    """As a worker hands it over, for a `with_request` command."""

    method, path = "POST", "/predict"
    headers: Mapping[str, str] = {}
    query_params: Mapping[str, str] = {}

    def __init__(self, value: Any) -> None:
        self._body = json.dumps(value).encode()

    async def body(self) -> bytes:
        return self._body

    async def json(self) -> Any:
        return json.loads(self._body)


def test_the_inference_service_example_gets_the_json_as_it_is(project: Project) -> None:
    backend = project.loaded(str(EXAMPLES / "inference_service"))
    (command,) = backend.signature.commands
    assert (command.name, command.whole_body) == ("predict", True)
    request = {"type": "libsvm", "feature_num": "3", "data": {"insts": "0 1:1.0 3:2"}}
    answer = backend.handler("predict")(request)
    assert answer == {"message": "SUCCESS", "code": 0, "data": {"insts": [2.0]}}


def test_an_inference_service_gets_the_given_model_path(project: Project) -> None:
    project.write(
        "model.py",
        """
        class InferenceService:
            def __init__(self, model_path): self.path = model_path
            async def process_request(self, request): return [self.path, request]
        """,
    )
    backend = project.loaded(model_path="/models/m1")
    assert backend.signature.commands[0].kind is CallKind.COROUTINE
    assert asyncio.run(backend.handler("predict")(5)) == ["/models/m1", 5]


@pytest.mark.parametrize(
    "body", ["def __init__(self, model_path): ...", "def process_request(self, request): ..."]
)
def test_an_inference_service_without_a_method_is_refused(project: Project, body: str) -> None:
    file = project.write("model.py", f"class InferenceService:\n    {body}\n")
    with pytest.raises(ModelLoadError, match=r"__init__\(self, model_path\) and process_req") as e:
        project.backend()
    assert e.value.fields["file"] == str(file)


def test_an_error_in_the_constructor_points_to_its_line(project: Project) -> None:
    file = project.write(
        "model.py",
        """
        class InferenceService:
            def __init__(self, model_path):
                open(model_path + "/weights")
            def process_request(self, request): ...
        """,
    )
    with pytest.raises(ModelLoadError, match="FileNotFoundError") as caught:
        project.loaded()
    assert caught.value.fields == {"file": str(file), "line": 3}


def test_the_algo_template_works_as_it_is(project: Project) -> None:
    project.write("algopkg/A/__init__.py", "")
    project.write("algopkg/A/backend.py", TEMPLATE % {"init": "pass"})
    backend = project.loaded("algopkg/A")
    (command,) = backend.signature.commands
    assert (command.name, command.with_request, command.kind) == (
        "predict", True, CallKind.COROUTINE,
    )  # fmt: skip
    answer = asyncio.run(backend.handler("predict")(FakeRequest({"x": 4})))
    assert (answer["status"], answer["result"]) == (1, 8)


def test_an_error_that_the_template_swallows_fails_the_load(project: Project) -> None:
    file = project.write("backend.py", TEMPLATE % {"init": "raise OSError('no weights')"})
    with pytest.raises(ModelLoadError) as caught:
        project.loaded("backend.py")
    assert caught.value.message == "_model_init raised OSError: no weights"
    line = 1 + file.read_text().split("\n").index("        raise OSError('no weights')")
    assert caught.value.fields == {"file": str(file), "line": line}


def test_a_missing_model_file_that_the_template_swallows_fails_the_load(project: Project) -> None:
    project.write("backend.py", TEMPLATE % {"init": "pass"})
    with pytest.raises(ModelLoadError, match="without calling _model_init"):
        project.loaded("backend.py", model_path="/nowhere,model.pb")


def test_the_class_is_left_as_it_was(project: Project) -> None:
    project.write(
        "backend.py",
        """
        class Base:
            def _model_init(self): self.value = 3
        class Mine(Base):
            def __init__(self, model_path): self._model_init()
            def _model_inference(self, param_dict): return self.value
        assert "_model_init" not in vars(Mine)
        """,
    )
    backend = project.loaded("backend.py")
    answer = backend.handler("predict")({})
    assert (answer["status"], answer["result"]) == (1, 3)
    assert "_model_init" not in vars(vars(backend)["_class"])


@pytest.mark.parametrize("prefix", ["", "async "])
@pytest.mark.parametrize("runenv", ["dev", "prod"])
def test_a_failed_inference_is_status_0_and_tells_its_trace_only_in_dev(
    project: Project, capsys: pytest.CaptureFixture[str], runenv: str, prefix: str
) -> None:
    project.write(
        "backend.py",
        f"""
        class Mine:
            def __init__(self, model_path): ...
            {prefix}def _model_inference(self, param_dict): return 1 / param_dict["x"]
        """,
    )
    handler = project.loaded("backend.py", runenv=runenv).handler("predict")

    def call(x: int) -> Any:
        answer = handler({"x": x})
        return asyncio.run(answer) if prefix else answer

    assert call(2)["result"] == 0.5
    failed = call(0)
    assert failed["status"] == 0
    assert ("ZeroDivisionError" in failed["info"]) is (runenv == "dev")
    log = capsys.readouterr().err
    assert "ZeroDivisionError" in log
    if runenv == "prod":
        assert failed["info"].split()[-1] in log


def test_a_changed_config_is_taken_while_serving(project: Project) -> None:
    backend = project.loaded(
        str(EXAMPLES / "algopkg" / "AlgoExample"), options={"config": {"threshold": 3}}
    )
    handler = backend.handler("predict")
    assert handler({"scores": [1, 4]})["result"] == {"labels": [0, 1]}
    backend.reconfigure({"config": {"threshold": 0}})
    assert handler({"scores": [1, 4]})["result"] == {"labels": [1, 1]}
    assert backend.signature.light == {"config"}
    for nothing_to_hand_over in ({"other": 1}, {"config": None}):
        with pytest.raises(NotImplementedError):
            backend.reconfigure(nothing_to_hand_over)


def test_a_reconfigure_that_is_async_is_refused(project: Project) -> None:
    project.write(
        "backend.py",
        """
        class Mine:
            def __init__(self, model_path): ...
            def _model_inference(self, param_dict): ...
            async def reconfigure(self, config): ...
        """,
    )
    with pytest.raises(ModelLoadError, match=r"not async: it is called between two requests"):
        project.backend("backend.py")


def test_what_a_call_of_its_own_lets_escape_is_status_0_but_for_a_body_that_is_no_json(
    project: Project,
) -> None:
    project.write(
        "backend.py",
        """
        class Mine:
            def __init__(self, model_path): ...
            def _model_inference(self, param_dict): ...
            async def __call__(self, request):
                asked = await request.json()
                return {"status": 1, "result": 1 / asked["x"]}
        """,
    )
    handler = project.loaded("backend.py").handler("predict")
    assert asyncio.run(handler(FakeRequest({"x": 2}))) == {"status": 1, "result": 0.5}
    failed = asyncio.run(handler(FakeRequest({"x": 0})))
    assert (failed["status"], failed.keys()) == (0, {"status", "info"})
    broken = FakeRequest({})
    broken.json = refuse  # type: ignore[method-assign]
    with pytest.raises(UsageError):
        asyncio.run(handler(broken))


async def refuse() -> Any:
    raise UsageError("body: no JSON")
