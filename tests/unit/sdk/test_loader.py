"""What a target stands for, and that a worker runs the code that was staged."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest

from modelcloud.errors import ModelLoadError
from modelcloud.sdk.loader import load_backend
from modelcloud.types import GenerationSpec
from support.projects import Project


def test_the_staged_code_runs_whatever_is_edited_since(project: Project) -> None:
    helper = project.write("parts/helper.py", "VALUE = 'old'\n")
    main = project.write("model.py", "from parts.helper import VALUE\ndef f(x): return VALUE\n")
    spec = project.stage()
    helper.write_text("VALUE = 'new'\n")
    main.unlink()
    assert load_backend(spec).handler("f")({"x": 0}) == {"result": "old"}
    shutil.rmtree(project.folder / "parts")
    assert load_backend(spec).handler("f")({"x": 0}) == {"result": "old"}


def test_a_cached_pyc_of_an_edited_file_is_never_run(project: Project) -> None:
    helper = project.write("helper.py", "VALUE = 1\n")
    project.write("model.py", "import helper\ndef f(x): return helper.VALUE\n")
    # Python itself would take this cache: same size, same second.
    times = (1_700_000_000, 1_700_000_000)
    os.utime(helper, times)
    subprocess.run([sys.executable, "-c", "import helper"], check=True, cwd=project.folder)
    helper.write_text("VALUE = 2\n")
    os.utime(helper, times)
    assert project.loaded().handler("f")({"x": 0}) == {"result": 2}


def test_files_beside_the_model_are_found_by_file(project: Project) -> None:
    project.write("weights.txt", "17")
    project.write(
        "model.py",
        """
        from pathlib import Path
        WEIGHTS = Path(__file__).parent / "weights.txt"
        def f(x): return [int(WEIGHTS.read_text()), __file__, __name__]
        """,
    )
    answer = project.loaded().handler("f")({"x": 0})
    assert answer == {"result": [17, str(project.folder / "model.py"), "model"]}


def test_staged_bytes_that_were_changed_are_not_run(project: Project) -> None:
    project.write("model.py", "def f(x): return 1\n")
    spec = project.stage()
    (Path(spec.snapshot) / "model.py").write_text("def f(x): return 2\n")
    with pytest.raises(ModelLoadError, match="changed since it was staged"):
        load_backend(spec)


def test_a_manifest_of_another_digest_is_refused(project: Project) -> None:
    project.write("model.py", "def f(x): return 1\n")
    spec = project.stage()
    with (Path(spec.snapshot) / "manifest.json").open("a") as manifest:
        manifest.write(" ")
    with pytest.raises(ModelLoadError, match="not the one this generation was made of"):
        load_backend(spec)


def test_a_traceback_shows_the_lines_that_ran(project: Project) -> None:
    main = project.write("model.py", "def f(x):\n    return 1 / x  # as staged\n")
    handler = project.loaded().handler("f")
    main.write_text("# edited\n# edited\n")
    with pytest.raises(ZeroDivisionError) as caught:
        handler({"x": 0})
    assert "1 / x  # as staged" in "".join(traceback.format_exception(caught.value))


def test_the_port_is_filled_in_before_the_main_file_is_compiled(project: Project) -> None:
    project.write("helper.py", "TEXT = '${port}'\n")
    project.write("model.py", "import helper\nPORT = ${port}\ndef f(x): return PORT, helper.TEXT\n")
    assert project.loaded(port=5001).handler("f")({"x": 0}) == {"result": (5001, "${port}")}


def test_what_the_model_makes_can_be_pickled_by_its_module(project: Project) -> None:
    project.write("model.py", "class Row: ...\ndef f(x): return Row()\n")
    row = project.loaded("model.py:f").handler("f")({"x": 0})["result"]
    assert type(pickle.loads(pickle.dumps(row))).__module__ == "model"


def test_a_main_file_named_like_a_library_does_not_replace_it(project: Project) -> None:
    import json

    project.write("json.py", "def f(x): return __name__\n")
    assert project.loaded("json.py:f").handler("f")({"x": 0}) == {"result": "modelcloud_json"}
    assert sys.modules["json"] is json


def test_a_package_keeps_its_relative_imports(project: Project) -> None:
    project.write("pkg/__init__.py", "")
    project.write("pkg/base.py", "ONE = 1\n")
    project.write("pkg/sub/__init__.py", "")
    project.write("pkg/sub/logging.py", "")
    project.write(
        "pkg/sub/algo.py",
        "import logging\nfrom ..base import ONE\ndef f(x): return ONE, __name__\n",
    )
    expected = {"result": (1, "pkg.sub.algo")}
    assert project.loaded("pkg/sub/algo.py:f").handler("f")({"x": 0}) == expected
    assert project.loaded("pkg.sub.algo:f").handler("f")({"x": 0}) == expected


def test_a_package_s_modules_stand_in_for_none_of_the_same_name(project: Project) -> None:
    project.write("pkg/__init__.py", "import sched\ndef f(x): return sched.__file__\n")
    project.write("pkg/sched.py", "")
    (found,) = project.loaded("pkg/__init__.py:f").handler("f")({"x": 0}).values()
    assert not Path(found).is_relative_to(project.folder)


def test_a_module_outside_the_current_folder_is_imported_as_installed(project: Project) -> None:
    spec = project.stage("statistics:mean")
    assert [path.name for path in Path(spec.snapshot).iterdir()] == ["manifest.json"]
    assert load_backend(spec).handler("mean")({"data": [1, 3]}) == {"result": 2}


SERVICE = """
class InferenceService:
    def __init__(self, model_path): ...
    def process_request(self, request): ...
def helper(): ...
"""
ALGO = """
class Base:
    def __init__(self, model_path): ...
    def _model_inference(self, param_dict): ...
class Mine(Base): ...
"""
DECORATED = """
import modelcloud
from modelcloud.data_types import any
@modelcloud.command('go', inputs={'x': any}, outputs={'y': any})
def run(model, inputs): ...
"""


@pytest.mark.parametrize(
    ("text", "target", "command"),
    [
        ("def only(x): ...\ndef _hidden(x): ...", "model.py", "only"),
        ("from json import loads\ndef only(x): ...", "model.py", "only"),
        (SERVICE, "model.py", "predict"),
        (ALGO, "model.py", "predict"),
        (DECORATED, "model.py", "go"),
        (DECORATED, "model.py:run", "go"),
    ],
)
def test_the_obvious_thing_of_a_file_is_served(
    project: Project, text: str, target: str, command: str
) -> None:
    project.write("model.py", text)
    assert [own.name for own in project.backend(target).signature.commands] == [command]


@pytest.mark.parametrize(
    ("text", "name", "says"),
    [
        ("def a(x): ...\ndef b(x): ...", "", "no command (it holds a, b)"),
        ("def a(x): ...", ":b", "there is no 'b'; accepted: one of a"),
        ("a = 3", ":a", "'a' is a int"),
        ("class A: ...", ":A", "the class A is none of these"),
        ("def setup(x): ...", ":setup", "an address of the server itself"),
        ("async def app(scope, receive, send): ...", ":app", "a web application of the ASGI kind"),
    ],
)
def test_what_cannot_be_served_is_refused_with_what_can(
    project: Project, text: str, name: str, says: str
) -> None:
    file = project.write("model.py", text)
    with pytest.raises(ModelLoadError) as caught:
        project.backend(f"model.py{name}")
    assert says in caught.value.message
    assert "accepted: " in caught.value.message
    assert caught.value.fields["file"] == str(file)


def test_a_notebooks_functions_run_from_their_file(project: Project) -> None:
    from modelcloud.sdk import notebook
    from modelcloud.sdk.decorators import registry_in

    cells: dict[str, object] = {"__name__": "__main__"}
    exec(
        "import modelcloud\n"
        "from modelcloud.data_types import number\n"
        "SCALE = 3\n"
        "@modelcloud.setup(options={'plus': number(default=1)})\n"
        "def setup(options): return lambda x: SCALE * x + options['plus']\n"
        "@modelcloud.command('go', inputs={'x': number}, outputs={'y': number})\n"
        "def go(model, inputs): return model(inputs['x'])\n",
        cells,
    )
    registry = registry_in(cells)
    assert registry is not None
    file = project.folder / "notebook-1.pkl"
    file.write_bytes(notebook.pack(registry))
    assert project.loaded(str(file)).handler("go")({"x": 2}) == 7
    file.write_bytes(b"no notebook")
    with pytest.raises(ModelLoadError, match="no packed notebook"):
        project.backend(str(file))


# ---- artifacts of the store


def answer(spec: GenerationSpec, command: str) -> Any:
    """What the command of a kept artifact gives for x = 0, once its model is loaded."""
    backend = load_backend(spec)
    backend.load({})
    return backend.handler(command)({"x": 0})


def test_an_artifact_runs_where_it_is_kept_with_the_files_that_came_with_it(
    project: Project,
) -> None:
    project.write("weights/w.txt", "17")
    project.write("parts/helper.py", "HERE = __file__\n")
    project.write(
        "model.py",
        """
        from pathlib import Path
        from parts.helper import HERE
        WEIGHTS = Path(__file__).parent / "weights" / "w.txt"
        def f(x): return [int(WEIGHTS.read_text()), __file__, HERE]
        """,
    )
    spec = project.keep()
    shutil.rmtree(project.folder / "parts")
    kept = Path(spec.snapshot)
    expected = [17, str(kept / "model.py"), str(kept / "parts/helper.py")]
    assert answer(spec, "f") == {"result": expected}
    assert not list(kept.rglob("__pycache__"))


def test_a_main_file_in_a_folder_finds_what_is_beside_it_first(project: Project) -> None:
    project.write("README.txt", "")
    project.write("helper.py", "WHERE = 'top'\n")
    project.write("other.py", "WHERE = 'top'\n")
    project.write("sub/helper.py", "WHERE = 'beside'\n")
    project.write(
        "sub/model.py", "import helper, other\ndef f(x): return helper.WHERE, other.WHERE\n"
    )
    assert answer(project.keep("sub/model.py"), "f") == {"result": ("beside", "top")}


INFERENCE_SERVICE = """
class InferenceService:
    def __init__(self, model_path): self.model_path = model_path
    def process_request(self, request): return self.model_path
"""


@pytest.mark.parametrize(
    ("model_path", "below"), [("", "sub"), ("weights", "weights"), ("sub/../weights", "weights")]
)
def test_a_model_path_lies_in_the_artifact(project: Project, model_path: str, below: str) -> None:
    project.write("weights/w.txt", "")
    project.write("sub/model.py", INFERENCE_SERVICE)
    spec = project.keep("sub/model.py", model_path=model_path)
    given = Path(answer(spec, "predict"))
    assert given.resolve() == (Path(spec.snapshot) / below).resolve()
    assert given.is_absolute()


def test_a_model_path_that_leads_out_of_the_artifact_is_refused(project: Project) -> None:
    project.write("model.py", INFERENCE_SERVICE)
    with pytest.raises(ModelLoadError, match="leads out of the version's files"):
        load_backend(project.keep(model_path="../secrets"))
    spec = project.keep(model_path=str(project.folder))
    assert answer(spec, "predict") == str(project.folder)  # an absolute one is the user's business
