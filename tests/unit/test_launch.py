"""`modelcloud.run()`: what it serves, from where it is called."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from modelcloud import launch
from modelcloud.config import ServeConfig
from modelcloud.errors import ModelLoadError, UsageError
from modelcloud.sdk import notebook
from modelcloud.types import Strategy

DECLARE = (
    "import modelcloud\nfrom modelcloud.data_types import any\n"
    "@modelcloud.command('go', inputs={'x': any}, outputs={'y': any})\n"
    "def go(model, inputs): return inputs['x']\n"
)


class Executed(Exception):
    """The process would have become a node."""

    def __init__(self, config: ServeConfig) -> None:
        super().__init__(config)
        self.config = config


@pytest.fixture(autouse=True)
def _no_node(monkeypatch: pytest.MonkeyPatch) -> None:
    def exec_node(config: ServeConfig) -> None:
        raise Executed(config)

    module = ModuleType("modelcloud.serve.launch")
    module.exec_node = exec_node  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.delattr(sys, "ps1", raising=False)


def run_in(namespace: dict[str, Any], call: str) -> ServeConfig:
    with pytest.raises(Executed) as caught:
        exec(f"import modelcloud\n{call}", namespace)
    return caught.value.config


def test_a_script_becomes_the_server_of_itself(tmp_path: Path) -> None:
    config = run_in(
        {"__name__": "__main__", "__file__": f"{tmp_path}/model.py"},
        "modelcloud.run(port=5001, model_options={'model': 'big'}, runenv='dev', workers=3, "
        "threads=2, strategy='rolling', model_path='/m')",
    )
    assert config.target == f"{tmp_path.resolve()}/model.py"
    assert (config.host, config.port, config.runenv) == ("127.0.0.1", 5001, "dev")
    assert (config.replicas, config.threads, config.model_path) == (3, 2, "/m")
    assert config.options == {"model": "big"}
    assert config.strategy.name is Strategy.ROLLING


def test_what_is_not_said_is_as_with_modelcloud_serve() -> None:
    config = run_in({"__name__": "__main__", "__file__": "/x/model.py"}, "modelcloud.run()")
    assert config == ServeConfig(target="/x/model.py")


def test_without_a_file_the_functions_are_packed(tmp_path: Path) -> None:
    config = run_in({"__name__": "__main__"}, f"{DECLARE}modelcloud.run()")
    registry = notebook.unpack(Path(config.target).read_bytes())
    assert list(registry.commands) == ["go"]
    assert config.service == "notebook"
    Path(config.target).unlink()
    Path(config.target).parent.rmdir()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ("sise=3", "no setting 'sise'; accepted: access_log"),
        ("target='x'", "no setting 'target'"),
        ("runenv='test'", "accepted: 'dev' or 'prod'"),
        ("port='5001'", "Expected `int`, got `str` - at `$.port`"),
        ("strategy='blue'", "Invalid enum value 'blue'"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused(call: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        exec(f"import modelcloud\nmodelcloud.run({call})", {"__file__": "/x/model.py"})
    assert says in caught.value.message


def test_a_notebook_without_a_command_is_told_what_is_missing() -> None:
    with pytest.raises(ModelLoadError, match=r"no @modelcloud\.command was run here"):
        exec("import modelcloud\nmodelcloud.run()", {"__name__": "__main__"})


def test_a_port_that_is_taken_is_refused_before_a_process_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
        monkeypatch.setattr(
            sys.modules["modelcloud.serve.launch"], "spawn_node", None, raising=False
        )
        with pytest.raises(UsageError, match=f"port {taken.getsockname()[1]} of 127.0.0.1"):
            exec(f"{DECLARE}modelcloud.run(port={taken.getsockname()[1]})", {})


def test_a_child_that_multiprocessing_started_does_not_serve(tmp_path: Path) -> None:
    program = tmp_path / "model.py"
    program.write_text(
        "import multiprocessing, modelcloud\n"
        "if __name__ == '__mp_main__':\n"
        "    modelcloud.run(port=-1)\n"
        "def f(): print('child', flush=True)\n"
        "if __name__ == '__main__':\n"
        "    process = multiprocessing.get_context('spawn').Process(target=f)\n"
        "    process.start()\n"
        "    process.join(60)\n"
        "    raise SystemExit(process.exitcode)\n"
    )
    done = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "child\n"


def test_a_handle_says_how_it_is(tmp_path: Path) -> None:
    config = ServeConfig(target="t", host="0.0.0.0", port=5001)
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    handle = launch.Handle(config, process, tmp_path / "folder")
    assert repr(handle) == "<modelcloud serving at http://127.0.0.1:5001>"
    handle.stop()
    handle.stop()
    assert repr(handle) == "<modelcloud stopped, was at http://127.0.0.1:5001>"
    assert process.stdin is not None
    process.stdin.close()
