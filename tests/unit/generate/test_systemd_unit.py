"""The unit: quoted by systemd's rules, with the times of the settings and without a secret."""

from __future__ import annotations

from typing import Any

import pytest

from modelcloud.config import ServeConfig
from modelcloud.errors import UsageError
from modelcloud.generate.systemd import Surroundings, unit


def lines(config: ServeConfig | None = None, **around: Any) -> list[str]:
    given: dict[str, Any] = {
        "program": "/srv/env/bin/modelcloud", "arguments": ("/srv/model.py",), "folder": "/srv",
        "user": "model", **around,
    }  # fmt: skip
    text = unit(config or ServeConfig(target="/srv/model.py", service="fib"), Surroundings(**given))
    return text.replace(" \\\n   ", "").splitlines()


@pytest.mark.parametrize(
    ("argument", "word"),
    [
        ("plain=1", "plain=1"),
        ("", '""'),
        ("two words", '"two words"'),
        ("100%", "100%%"),
        ("$HOME", "$$HOME"),
        ("${HOME} x", '"$${HOME} x"'),
        ('say "x"', '"say \\"x\\""'),
        ("a\\b", '"a\\\\b"'),
        ("it's", '"it\'s"'),
        (";", '";"'),
        ("模型", '"模型"'),
    ],
)
def test_an_argument_is_quoted_as_systemd_reads_it(argument: str, word: str) -> None:
    found = lines(arguments=("/srv/model.py", "--option", argument))
    assert f"ExecStart=/srv/env/bin/modelcloud serve /srv/model.py --option {word}" in found


@pytest.mark.parametrize("argument", ["a\nExecStartPre=/bin/evil", "a\0b", "\x1b"])
def test_what_no_unit_can_hold_is_refused(argument: str) -> None:
    with pytest.raises(UsageError, match="control character"):
        lines(arguments=("/srv/model.py", argument))


@pytest.mark.parametrize("user", ["", "a b", "root\nUser=x", "%u"])
def test_a_user_that_is_no_name_is_refused(user: str) -> None:
    with pytest.raises(UsageError, match="user"):
        lines(user=user)


def test_the_times_are_those_of_the_settings() -> None:
    config = ServeConfig(
        target="m.py", service="fib", drain_s=100.5, load_timeout_s=5, health_timeout_s=20
    )
    found = dict(line.split("=", 1) for line in lines(config) if "=" in line)
    assert float(found["TimeoutStopSec"]) >= 100.5 + 10
    assert float(found["TimeoutStartSec"]) >= 5 + 30
    assert float(found["WatchdogSec"]) >= 20 + 30  # a hanging gateway found, and replaced


def test_the_folders_it_writes_to_are_made_by_systemd_or_named() -> None:
    config = ServeConfig(
        target="m.py", service="fib", uds="/run/fib/a/http.sock", log_dir="/var/log/fib"
    )
    found = lines(config)
    assert {"RuntimeDirectory=fib/a", "RuntimeDirectoryMode=0750", "LogsDirectory=fib"} <= {*found}
    config = ServeConfig(target="m.py", service="fib", uds="/srv/a b/s", log_dir="/data/100%")
    assert {'ReadWritePaths="/srv/a b"', "ReadWritePaths=/data/100%%"} <= {*lines(config)}


@pytest.mark.parametrize(
    ("path", "there", "missing"),
    [
        ("/home/ann/model.py", "ProtectHome=read-only", "ProtectHome=yes"),
        ("/tmp/model.py", "ReadWritePaths=/tmp", "PrivateTmp=yes"),
    ],
)
def test_no_restriction_hides_what_is_served(path: str, there: str, missing: str) -> None:
    found = lines(paths=(path,))
    assert there in found
    assert missing not in found


def test_the_token_comes_as_a_credential() -> None:
    found = lines(token_file="/etc/model/100%.token")
    assert "LoadCredential=admin-token:/etc/model/100%%.token" in found
    (start,) = [line for line in found if line.startswith("ExecStart=")]
    assert start.endswith(" --admin-token-file ${CREDENTIALS_DIRECTORY}/admin-token")
    assert not any(line.startswith("ExecReload=") for line in found)


def test_a_reload_is_a_live_update_at_the_servers_address() -> None:
    reload = "ExecReload=/srv/env/bin/modelcloud update "
    assert f"{reload}http://127.0.0.1:8080" in lines()
    config = ServeConfig(target="m.py", service="fib", uds="/run/a b/100%.sock")
    assert f'{reload}"unix:/run/a b/100%%.sock"' in lines(config)
    config = ServeConfig(target="m.py", service="fib", tls_cert="c", tls_key="k")
    assert not any(line.startswith("ExecReload=") for line in lines(config))


def test_nothing_that_breaks_compilers_or_gpus_is_set() -> None:
    names = {line.partition("=")[0] for line in lines() if "=" in line}
    assert not names & {
        "MemoryDenyWriteExecute", "PrivateDevices", "DevicePolicy", "ProtectClock",
        "SystemCallFilter", "ProcSubset",
    }  # fmt: skip


def test_a_port_that_is_another_one_each_time_is_refused() -> None:
    with pytest.raises(UsageError, match="port 0"):
        lines(ServeConfig(target="m.py", service="fib", port=0))
