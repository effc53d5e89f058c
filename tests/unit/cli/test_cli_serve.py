"""Every flag of `serve` reaches its setting, and nothing runs when one is wrong."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from modelcloud.cli.parse import TOKEN_VARIABLE
from modelcloud.config import Limits, ServeConfig
from modelcloud.types import Strategy, StrategySpec
from support.commands import Run

FLAGS: list[tuple[list[str], str, Any]] = [
    (["--option", "a=1", "-o", "b=x=y"], "options_text", {"a": "1", "b": "x=y"}),
    (["--model-path", "weights"], "model_path", "weights"),
    (["--model-id", "m261"], "service", "m261"),
    (["--python", "/env/bin/python"], "python", "/env/bin/python"),
    (["--upload-dir", "uploads"], "upload_dir", "uploads"),
    (["--runenv", "dev"], "runenv", "dev"),
    (["--host", "::1"], "host", "::1"),
    (["--port", "0"], "port", 0),
    (["-p", "65535"], "port", 65535),
    (["--uds", "http.sock"], "uds", "http.sock"),
    (["--replicas", "3"], "replicas", 3),
    (["--threads", "4"], "threads", 4),
    (["--thread", "10"], "threads", 10),
    (["--gateways", "2"], "gateways", 2),
    (["--log-dir", "logs"], "log_dir", "logs"),
    (["--access-log"], "access_log", True),
    (["--strategy", "recreate"], "strategy", StrategySpec(name=Strategy.RECREATE)),
    (
        ["--strategy", "rolling", "--max-surge", "1", "--max-unavailable", "0"],
        "strategy",
        StrategySpec(name=Strategy.ROLLING, max_surge=1, max_unavailable=0),
    ),
    (["--watch"], "watch", True),
    (["--timestamp-file", "stamp"], "timestamp_file", "stamp"),
    (["--artifact-root", "models"], "artifact_root", "models"),
    (["--keep-warm", "0"], "keep_warm_s", 0.0),
    (["--load-timeout", "1.5"], "load_timeout_s", 1.5),
    (["--drain", "5"], "drain_s", 5.0),
    (["--health-timeout", "2"], "health_timeout_s", 2.0),
    (["--admin-token", "s3cret"], "admin_token", "s3cret"),
    (["--allowed-host", "a", "--allowed-host", "b"], "allowed_hosts", ("a", "b")),
    (["--cors", "https://app.test"], "cors", "https://app.test"),
    (["--tls-cert", "c", "--tls-key", "k"], "tls_cert", "c"),
    (["--tls-cert", "c", "--tls-key", "k"], "tls_key", "k"),
    (["--max-head", "64k"], "head", 65536),
    (["--max-body", "1M"], "body", 2**20),
    (["--max-buffered", "2G"], "buffered", 2**31),
    (["--header-timeout", "3"], "header_timeout_s", 3.0),
    (["--min-body-rate", "0"], "body_min_rate", 0),
    (["--idle-timeout", "5"], "idle_timeout_s", 5.0),
    (["--max-connections", "10"], "connections", 10),
    (["--max-queue", "20"], "queue", 20),
    (["--deadline", "0.5"], "deadline_s", 0.5),
    (["--max-pipeline", "1"], "pipeline", 1),
]  # fmt: skip

WRONG = [
    [],
    ["a.py", "b.py"],
    ["a.py", "--bogus"],
    ["a.py", "--model", "folder"],
    ["a.py", "--port", "65536"],
    ["a.py", "--port", "http"],
    ["a.py", "--replicas", "0"],
    ["a.py", "--deadline", "0"],
    ["a.py", "--deadline", "nan"],
    ["a.py", "--keep-warm", "inf"],
    ["a.py", "--max-body", "64MB"],
    ["a.py", "--strategy", "purple"],
    ["a.py", "--runenv", "test"],
    ["a.py", "--option", "novalue"],
    ["a.py", "--max-surge", "1"],
    ["a.py", "--tls-cert", "c"],
    ["a.py", "--tls-key", "k"],
    ["a.py", "--admin-token", "a", "--admin-token-file", "b"],
    ["a.py", "--admin-token-file", "missing"],
    ["a.py", "--host", ""],
    ["a.py", "--uds", "s", "--port", "8080"],
    ["a.py", "--uds", "s", "--host", "127.0.0.1"],
    ["a.py", "--uds", "s", "--tls-cert", "c", "--tls-key", "k"],
]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[ServeConfig]:
    """The settings that the node would have been started with."""
    launch, started = ModuleType("launch"), list[ServeConfig]()
    launch.exec_node = started.append  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "modelcloud.serve.launch", launch)
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    return started


def flat(config: ServeConfig) -> dict[str, Any]:
    """All settings by name, those of `limits` too."""
    settings = {name: getattr(config, name) for name in config.__struct_fields__}
    limits = settings.pop("limits")
    return settings | {name: getattr(limits, name) for name in limits.__struct_fields__}


def test_without_flags_every_setting_is_its_default(run: Run, started: list[ServeConfig]) -> None:
    assert run("serve", "model.py").status == 0
    assert started == [ServeConfig(target="model.py")]


@pytest.mark.parametrize(("flags", "setting", "value"), FLAGS)
def test_a_flag_reaches_its_setting(
    run: Run, started: list[ServeConfig], flags: list[str], setting: str, value: Any
) -> None:
    said = run("serve", "model.py", *flags)
    assert said.status == 0, said.err
    (config,) = started
    assert flat(config)[setting] == value
    changed = {name for name, now in flat(config).items()
               if now != flat(ServeConfig(target="model.py"))[name]}  # fmt: skip
    assert changed <= {setting, "tls_cert", "tls_key"}
    assert msgspec.json.decode(msgspec.json.encode(config), type=ServeConfig) == config


def test_a_models_folder_is_served_as_paddle_serving_does(
    run: Run, started: list[ServeConfig]
) -> None:
    said = run("serve", "--model", "uci_housing_model", "--thread", "10", "--port", "9292")
    assert said.status == 0, said.err
    run("serve", "--model", "m", "--timestamp-file", "done")
    assert started == [
        ServeConfig(
            target="uci_housing_model", threads=10, port=9292, timestamp_file="fluid_time_file"
        ),
        ServeConfig(target="m", timestamp_file="done"),
    ]


def test_no_setting_is_without_a_flag() -> None:
    settings = {*ServeConfig.__struct_fields__, *Limits.__struct_fields__}
    assert {setting for _, setting, _ in FLAGS} == settings - {"target", "options", "limits"}


@pytest.mark.parametrize("arguments", WRONG)
def test_wrong_usage_is_one_line_and_2_and_starts_nothing(
    run: Run, started: list[ServeConfig], arguments: list[str]
) -> None:
    said = run("serve", *arguments)
    assert said.status == 2
    assert said.out == ""
    assert said.err.startswith("modelcloud: ")
    assert said.err.count("\n") == 1
    assert started == []


def test_the_token_comes_from_a_file_or_the_environment(
    run: Run, started: list[ServeConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text("from-file\n")
    run("serve", "model.py", "--admin-token-file", str(file))
    monkeypatch.setenv(TOKEN_VARIABLE, "from-environment")
    run("serve", "model.py")
    assert [config.admin_token for config in started] == ["from-file", "from-environment"]
