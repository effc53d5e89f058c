"""The decorated style: what is accepted, what is refused, and where an error points."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from modelcloud.errors import InvalidInput, ModelLoadError
from modelcloud.sdk.contract import CallKind
from support.projects import Project

HEAD = "import modelcloud\nfrom modelcloud.data_types import any, number, text\n"
COMMAND = "@modelcloud.command('go', inputs={'x': number}, outputs={'y': number})\n"

#: The first seed's model file, as it stands there but for its two slips (`import time` after its
#: use in a diff, `x` for `input`) and its 20 s sleep.
SEED = """
import modelcloud
from modelcloud.data_types import text,number,any

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
    if options["model"]=="big":
      return model1
    else:
        return model2

@modelcloud.command('fib', inputs=stylize_inputs, outputs=stylize_outputs,description='create a algolink model service demo')

def classify(model, input):
    n=input["n"]
    return {"result":model(n)}

if __name__ == '__main__':
    modelcloud.run(port=${port},model_options={'model': 'big',"version":"0.0.1"},runenv="prod")
"""  # noqa: E501 — as its users have it


def test_the_first_seeds_file_runs(project: Project) -> None:
    project.write("model.py", SEED)
    big = project.loaded(options={"model": "big"}, port=5001)
    assert big.handler("fib")({"n": 10}) == {"result": 89}
    small = project.loaded(options={"model": "small"}, port=5001)
    assert small.handler("fib")({"n": 10}) == {"result": 10}
    (command,) = small.signature.commands
    assert command.name == "fib"
    assert command.description == "create a algolink model service demo"
    assert list(small.signature.options) == ["model", "version"]


def test_an_option_without_default_that_is_not_given_is_named(project: Project) -> None:
    project.write("model.py", SEED)
    with pytest.raises(InvalidInput) as caught:
        project.loaded()
    assert caught.value.fields["field"] == "model"
    assert "no default" in caught.value.message


@pytest.mark.parametrize("decorator", ["@modelcloud.setup", "@modelcloud.setup()"])
@pytest.mark.parametrize("parameters", ["", "options"])
def test_a_bare_setup_may_take_the_options_or_nothing(
    project: Project, decorator: str, parameters: str
) -> None:
    project.write(
        "model.py",
        f"{HEAD}{decorator}\ndef s({parameters}): return 7\n"
        f"{COMMAND}def go(model, inputs): return model + inputs['x']\n",
    )
    assert project.loaded().handler("go")({"x": 1}) == 8


def test_without_setup_the_model_is_none(project: Project) -> None:
    project.write("model.py", f"{HEAD}{COMMAND}def go(model, inputs): return model\n")
    assert project.loaded().handler("go")({"x": 1}) is None


@pytest.mark.parametrize(
    ("function", "kind", "returns"),
    [
        ("def go(model, inputs): return 1", CallKind.VALUE, int),
        ("async def go(model, inputs): return 1", CallKind.COROUTINE, inspect.iscoroutine),
        ("def go(model, inputs): yield 1", CallKind.GENERATOR, inspect.isgenerator),
        ("async def go(model, inputs): yield 1", CallKind.ASYNC_GENERATOR, inspect.isasyncgen),
    ],
)
def test_a_command_may_be_any_kind_of_function(
    project: Project, function: str, kind: CallKind, returns: Any
) -> None:
    project.write("model.py", f"{HEAD}{COMMAND}{function}\n")
    backend = project.loaded()
    assert backend.signature.commands[0].kind is kind
    answer = backend.handler("go")({"x": 1})
    assert isinstance(answer, returns) if isinstance(returns, type) else returns(answer)
    if inspect.iscoroutine(answer):
        answer.close()


def test_commands_of_modules_beside_the_main_file_are_served_too(project: Project) -> None:
    project.write("more.py", f"{HEAD}{COMMAND}def go(model, inputs): return 1\n")
    project.write(
        "model.py", f"{HEAD}import more\n{COMMAND.replace('go', 'run')}def f(m, i): ...\n"
    )
    assert [command.name for command in project.backend().signature.commands] == ["go", "run"]


def test_one_load_knows_nothing_of_another(project: Project) -> None:
    project.write("model.py", f"{HEAD}{COMMAND}def go(model, inputs): ...\n")
    project.backend()
    project.write("model.py", f"{HEAD}{COMMAND.replace('go', 'run')}def go(model, inputs): ...\n")
    assert [command.name for command in project.backend().signature.commands] == ["run"]


def test_decorated_functions_stay_functions(project: Project) -> None:
    project.write(
        "model.py", f"{HEAD}{COMMAND}def go(model, inputs): return 1\nassert go(None, {{}}) == 1\n"
    )
    project.backend()


@pytest.mark.parametrize(
    ("body", "line", "says"),
    [
        ("def f(:", 3, "syntax error"),
        ("@modelcloud.setup\ndef s(): ...", 3, "no command"),
        (f"{COMMAND}def a(m, i): ...\n{COMMAND}def b(m, i): ...", 5,
         "two commands of the name 'go'; the first is at model.py:3"),
        ("@modelcloud.setup\ndef s(): ...\n@modelcloud.setup\ndef t(): ...", 5,
         "the first is at model.py:3; accepted: one"),
        ("@modelcloud.command('go', outputs={'y': number})\ndef go(m, i): ...", 3, "no inputs"),
        ("@modelcloud.command('go', inputs={'x': number})\ndef go(m, i): ...", 3, "no outputs"),
        ("@modelcloud.command('go', inputs={}, outputs={'y': any})\ndef go(m, i): ...", 3,
         "no inputs"),
        ("@modelcloud.command('go', inputs={'x': int}, outputs={'y': any})\ndef go(m, i): ...", 3,
         "accepted: a data type"),
        ("@modelcloud.command('go', inputs=number, outputs={'y': any})\ndef go(m, i): ...", 3,
         "accepted: a dict"),
        ("@modelcloud.command('a/b', inputs={'x': any}, outputs={'y': any})\ndef go(m, i): ...", 3,
         "letters, digits, _ and -"),
        ("@modelcloud.command('setup', inputs={'x': any}, outputs={'y': any})\ndef f(m, i): ...", 3,
         "an address of the server itself"),
        ("@modelcloud.command\ndef go(m, i): ...", 3, "without a name"),
        (f"{COMMAND}def go(inputs): ...", 3, "a function of (model, inputs)"),
        ("@modelcloud.setup(options={'a': str})\ndef s(options): ...", 3, "accepted: a data type"),
        ("@modelcloud.setup(options={'a': any})\ndef s(): ...", 3, "a function of (options)"),
        ("@modelcloud.setup\nasync def s(): ...", 3, "a plain function"),
        ("x = 1\nn = number(min=2, max=1)", 4, "min 2 is over max 1"),
        ("import no_such_module", 3, "imports 'no_such_module', which is not there"),
        ("def f():\n    raise KeyError('k')\nf()", 4, "KeyError"),
        ("import sys\nsys.exit(3)", 4, "sys.exit(3)"),
        ("x = 1", 1, "no command"),
        ("x = '\0'", 1, "null bytes"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_at_its_line(
    project: Project, body: str, line: int, says: str
) -> None:
    file = project.write("model.py", f"{HEAD}{body}\n")
    with pytest.raises(ModelLoadError) as caught:
        project.backend()
    error = caught.value
    assert says in error.message
    assert error.fields == {"file": str(file), "line": line}
    assert str(project.folder) not in error.message


def test_an_error_in_setup_points_to_the_users_innermost_line(project: Project) -> None:
    helper = project.write("helper.py", "import json\ndef load():\n    return json.loads('{')\n")
    project.write(
        "model.py",
        f"{HEAD}import helper\n@modelcloud.setup\ndef s(): return helper.load()\n"
        f"{COMMAND}def go(m, i): ...\n",
    )
    with pytest.raises(ModelLoadError) as caught:
        project.loaded()
    error = caught.value
    assert error.fields == {"file": str(helper), "line": 3}
    assert error.message.startswith("setup raised JSONDecodeError")
    assert error.detail is not None
    assert "return json.loads('{')" in error.detail


@pytest.mark.parametrize("run", ["modelcloud.run(port=1)", "if __name__ == '__main__': 1 / 0"])
def test_a_worker_that_loads_the_file_does_not_run_it(project: Project, run: str) -> None:
    project.write("model.py", f"{HEAD}{COMMAND}def go(m, i): ...\n{run}\n")
    assert project.backend().signature.commands[0].name == "go"


def test_running_a_cell_again_replaces_what_it_declared() -> None:
    from modelcloud.sdk.decorators import registry_in

    cells: dict[str, Any] = {"__name__": "__main__"}
    exec(HEAD, cells)
    for answer in (1, 2):
        exec(f"{COMMAND}def go(model, inputs): return {answer}", cells)
    registry = registry_in(cells)
    assert registry is not None
    (own,) = (own for _, own in registry.commands.values())
    assert own.function(None, {}) == 2
