"""Every flag of `up` reaches its setting, and nothing is made when one is wrong."""

from __future__ import annotations

import os
import re
import sys
from importlib.metadata import packages_distributions, requires
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from msgspec.structs import replace

from modelcloud.cli import parse
from modelcloud.cli.up import LIBRARIES, SECRETS
from modelcloud.config import Limits, PlatformConfig
from modelcloud.node import handover
from support.commands import Run

GIB = 1 << 30
FLAGS: list[tuple[list[str], str, Any]] = [
    (["--data", "/d"], "data", "/d"),
    (["--database", "postgresql://x"], "database", "postgresql://x"),
    (["--host", "::1"], "host", "::1"),
    (["--port", "0"], "port", 0),
    (["-p", "65535"], "port", 65535),
    (["--control-host", "0.0.0.0"], "control_host", "0.0.0.0"),
    (["--control-port", "9000"], "control_port", 9000),
    (["--gateways", "3"], "gateways", 3),
    (["--access-log"], "access_log", True),
    (["--dashboard"], "site", "modelcloud.dashboard.site"),
    (["--no-dashboard"], "site", ""),
    (["--root", "/usr", "--root", "/tmp"], "roots", ("/usr", "/tmp")),
    (["--allowed-host", "a", "--allowed-host", "b"], "allowed_hosts", ("a", "b")),
    (
        ["--trusted-proxy", "127.0.0.1", "--trusted-proxy", "10.0.0.0/8"],
        "trusted_proxies",
        ("127.0.0.1/32", "10.0.0.0/8"),
    ),
    (
        ["--allow-network", "10.1.0.0/16", "--allow-network", "::1"],
        "networks",
        ("10.1.0.0/16", "::1/128"),
    ),
    (["--hadoop-bin", "/bin/sh"], "hadoop_bin", "/bin/sh"),
    (["--cors", "https://app.test"], "cors", "https://app.test"),
    (["--tls-cert", "c", "--tls-key", "k"], "tls_cert", "c"),
    (["--tls-cert", "c", "--tls-key", "k"], "tls_key", "k"),
    (["--no-confine"], "confine", False),
    (["--workspaces", "2"], "workspaces", 2),
    (["--workspace-port", "0"], "workspace_port", 0),
    (["--workspace-url", "https://labs.example/"], "workspace_url", "https://labs.example"),
    (["--workspace-memory", "1G"], "workspace_memory", 1 << 30),
    (["--workspace-idle", "60"], "workspace_idle_s", 60.0),
    (["--cpus", "1.5"], "cpus", 1.5),
    (["--memory", "4G"], "memory", 4 * GIB),
    (["--gpus", "-1"], "gpus", -1),
    (["--upload-limit", "1G"], "upload_limit", GIB),
    (["--env-timeout", "60"], "env_timeout_s", 60.0),
    (["--load-timeout", "1.5"], "load_timeout_s", 1.5),
    (["--engine", "ray"], "engine", "ray"),
    (["--engine", "ray", "--ray-address", "10.0.0.1:6379"], "ray_address", "10.0.0.1:6379"),
    (["--ray-http-port", "9000"], "ray_http_port", 9000),
    (["--drain", "0"], "drain_s", 0.0),
    (["--health-timeout", "2"], "health_timeout_s", 2.0),
    (["--max-body", "1M"], "body", 1 << 20),
    (["--max-queue", "20"], "queue", 20),
    (["--deadline", "0.5"], "deadline_s", 0.5),
]
LIMITS = {"body", "queue", "deadline_s"}


class Node:
    """In the place of the node, and of what prepares the data folder."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.config: PlatformConfig | None = None
        self.password_file: Path | None = None
        bootstrap = ModuleType("modelcloud.control.bootstrap")
        bootstrap.prepare = self._prepare  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "modelcloud.control.bootstrap", bootstrap)
        monkeypatch.setattr("modelcloud.control.bootstrap", bootstrap, raising=False)
        monkeypatch.setattr(handover, "become", self._become)

    def _prepare(self, _: PlatformConfig, password_file: Path | None) -> None:
        self.password_file = password_file

    def _become(self, program: str, config: PlatformConfig) -> None:
        assert program == "modelcloud.node.__main__"
        self.config = config


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Node:
    monkeypatch.delenv(parse.DATABASE_VARIABLE, raising=False)
    # with the extra `ray` or without it
    monkeypatch.setattr("modelcloud.cli.up.find_spec", lambda n: n == "ray" or find_spec(n))
    return Node(monkeypatch)


@pytest.mark.parametrize(("flags", "field", "value"), FLAGS)
def test_a_flag_reaches_its_setting(
    run: Run, node: Node, flags: list[str], field: str, value: Any
) -> None:
    said = run("up", *flags)
    assert said.status == 0, said.err
    assert node.config is not None
    assert getattr(node.config.limits if field in LIMITS else node.config, field) == value


def test_every_setting_has_a_flag_and_without_flags_is_its_default(run: Run, node: Node) -> None:
    found_out = {"hidden", "database_variables"}
    fields = {*PlatformConfig.__struct_fields__, *LIMITS} - {"limits", *found_out}
    assert {field for _, field, _ in FLAGS} == fields
    assert run("up").status == 0
    assert node.config is not None
    default = PlatformConfig(data=str(Path.cwd() / PlatformConfig().data), limits=Limits())
    assert replace(node.config, hidden=(), site="") == default


def test_the_pages_are_there_if_what_they_need_is(
    run: Run, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("up").status == 0
    assert node.config is not None
    assert node.config.site == "modelcloud.dashboard.site"
    monkeypatch.setattr(
        "modelcloud.cli.up.find_spec", lambda name: None if name == "nicegui" else find_spec(name)
    )
    assert run("up").status == 0
    assert node.config.site == ""
    refused = run("up", "--dashboard")
    assert refused.status == 2
    assert "needs nicegui, not installed here" in refused.err


def test_secrets_are_hidden_and_taken_out_of_what_workers_inherit(
    run: Run, node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("MODELCLOUD_CONFIG", raising=False)
    for name in (*SECRETS, "PGPASSWORD"):
        monkeypatch.setenv(name, "postgresql://s3cret")
    key, password = tmp_path / "key.pem", tmp_path / "password"
    arguments = ("--tls-cert", "c", "--tls-key", str(key), "--admin-password-file", str(password))
    assert run("up", *arguments).status == 0
    assert node.config is not None
    assert set(node.config.hidden) == {
        str(key), str(password), str(tmp_path / ".config" / "modelcloud"),
        str(tmp_path / ".pgpass"),
    }  # fmt: skip
    assert node.config.database_variables == {"PGPASSWORD": "postgresql://s3cret"}
    assert "postgresql://s3cret" not in os.environ.values()


def test_a_models_own_database_variables_stay_where_the_platform_has_no_use_for_them(
    run: Run, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "of a model")
    assert run("up").status == 0
    assert node.config is not None
    assert node.config.database_variables == {}
    assert os.environ["PGPASSWORD"] == "of a model"


def test_a_database_from_the_environment_is_kept_from_the_workers(
    run: Run, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(parse.DATABASE_VARIABLE, "postgresql://user:s3cret@host/db")
    said = run("up", "--admin-password-file", "secret")
    assert said.status == 0
    assert "--admin-password-file was not used: this is not the first start" in said.err
    assert node.config is not None
    assert node.config.database == "postgresql://user:s3cret@host/db"
    assert node.password_file == Path("secret")
    assert parse.DATABASE_VARIABLE not in os.environ


@pytest.mark.parametrize(
    "flags",
    [
        ["--tls-cert", "c"], ["--port", "65536"], ["--gateways", "0"], ["--memory", "much"],
        ["--gpus", "-2"], ["--cpus", "-1"], ["--cpus", "nan"], ["--drain", "-1"],
        ["--deadline", "0"], ["here"], ["--workspace-url", "labs.example"],
        ["--workspace-url", "http://[x"], ["--workspace-url", "http://labs.example:99999"],
        ["--workspace-url", "http://ann:secret@labs.example"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_wrong_usage_is_one_line_and_starts_nothing(run: Run, node: Node, flags: list[str]) -> None:
    said = run("up", *flags)
    assert (said.status, said.out) == (2, "")
    assert said.err.count("\n") == 1
    assert node.config is None


def test_what_is_looked_for_is_what_the_extra_brings() -> None:
    brings = {
        re.split(r"[^\w-]", requirement)[0].lower()
        for requirement in requires("modelcloud") or ()
        if "extra == 'platform'" in requirement.replace('"', "'")
    }
    of = packages_distributions()
    assert {
        name.lower().replace("_", "-") for library in LIBRARIES for name in of[library]
    } == brings


def test_a_root_that_is_not_there_is_refused_by_name(run: Run, node: Node, tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    said = run("up", "--root", str(tmp_path), "--root", str(missing))
    assert said.status == 2
    assert f"--root {missing}: there is no such folder" in " ".join(said.err.split())
    assert node.config is None
