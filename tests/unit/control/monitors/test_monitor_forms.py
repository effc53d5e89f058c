"""What a monitor may be made of, and where that leads its source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from modelcloud.config import PlatformConfig
from modelcloud.control.monitors.monitor_forms import (
    MonitorBody,
    at,
    check,
    golden_of,
    place_of,
    source_spec,
    split,
)
from modelcloud.control.monitors.surroundings import around
from modelcloud.errors import InvalidInput, UsageError
from modelcloud.monitors.address import Addresses

FTP = {"type": "ftp", "ftp_host": "models.example", "remote_path": "/daily"}
CONFIG = PlatformConfig(data="/data", networks=("10.1.0.0/16",))


def body(**fields: Any) -> MonitorBody:
    names = {"name": "m", "remote_model_name": "m.tar", "remote_donefile_name": "done"}
    return MonitorBody(**{**names, **FTP, **fields})


def test_a_source_reaches_public_addresses_and_the_allowed_networks() -> None:
    assert source_spec(body(), {}, CONFIG).addresses == Addresses(networks=("10.1.0.0/16",))


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"type": "nfs", "ftp_host": ""}, "accepted: general, hdfs"),
        ({"ftp_host": ""}, "needs --ftp_host"),
        ({"general_host": "http://x"}, "general_host"),
        ({"storage_options": {"key": "x"}}, "storage_options.key"),
        ({"remote_model_name": "../m"}, "leads out"),
        ({"remote_model_name": "done"}, "are the same"),
        ({"type": "hdfs", "ftp_host": ""}, "--hadoop-bin"),
        ({"type": "local", "ftp_host": "", "remote_path": "/etc"}, "started without --root"),
        ({"type": "sftp", "ftp_host": "", "remote_path": "sftp://a:b@h/x"}, "with a password"),
        (
            {"type": "sftp", "ftp_host": "", "remote_path": "sftp://h/x",
             "storage_options": {"client_keys": "/root/.ssh/id_rsa"}},
            "storage_options.client_keys",
        ),
        ({"trust": "ftp://other.example/daily"}, "'ftp://models.example/daily'"),
        ({"python": "python3"}, "absolute path of an interpreter"),
        ({"strategy": "all_at_once"}, "blue_green"),
        ({"name": "a b"}, "letters, digits"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_what_is_accepted(
    fields: dict[str, Any], told: str
) -> None:
    with pytest.raises(UsageError) as refused:
        check(body(**fields), {}, CONFIG)
    assert told in refused.value.message


def test_a_local_folder_lies_below_a_root_and_outside_of_the_platforms_data(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "out").symlink_to(tmp_path)
    config = PlatformConfig(data=str(tmp_path / "data"), roots=(str(tmp_path / "models"),))

    def local(path: Path) -> MonitorBody:
        return body(type="local", ftp_host="", remote_path=str(path))

    spec = source_spec(local(tmp_path / "models"), {}, config)
    assert spec.roots == config.roots
    assert not spec.addresses.anything
    for path in (tmp_path / "data", tmp_path, tmp_path / "models" / "out"):
        with pytest.raises(InvalidInput, match="path"):
            source_spec(local(path), {}, config)


def test_the_program_hadoop_is_the_administrators_not_the_users(tmp_path: Path) -> None:
    config = msgspec.structs.replace(CONFIG, hadoop_bin="/opt/hadoop/bin/hadoop")
    spec = source_spec(body(type="hdfs", ftp_host=""), {}, config)
    assert spec.hadoop_bin == "/opt/hadoop/bin/hadoop"
    with pytest.raises(ValueError, match="hadoop_bin"):
        body(type="hdfs", hadoop_bin="/bin/sh")


def test_s3_without_a_key_is_asked_as_nobody() -> None:
    """Else its libraries would look for credentials of the server's own user."""
    s3 = body(type="s3", ftp_host="", storage_options={"region_name": "eu-1"})
    options = source_spec(s3, {}, CONFIG).options
    assert options == {"client_kwargs": {"region_name": "eu-1"}, "anon": True}
    options = source_spec(s3, {"secret_options": {"key": "a", "secret": "b"}}, CONFIG).options
    assert "anon" not in options


def test_a_host_key_of_sftp_is_a_file_of_the_monitor(tmp_path: Path) -> None:
    sftp = body(type="sftp", ftp_host="", remote_path="sftp://h/x", known_hosts="h ssh-ed25519 AA")
    options = at(source_spec(sftp, {}, CONFIG), sftp, tmp_path).options
    assert Path(options["known_hosts"]).read_text() == "h ssh-ed25519 AA\n"


def test_credentials_are_told_apart_from_what_is_kept_in_the_open() -> None:
    given, secrets = split(body(ftp_password="s3cret", interval=5))
    assert secrets == {"ftp_password": "s3cret"}
    assert "s3cret" not in str(given)


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({}, "ftp://models.example/daily"),
        ({"ftp_port": 2121}, "ftp://models.example:2121/daily"),
        ({"type": "general", "ftp_host": "", "general_host": "models.example"},
         "http://models.example/daily"),
        ({"type": "hdfs", "fs_name": "hdfs://n:9000"}, "hdfs://n:9000/daily"),
        ({"type": "hdfs"}, "hdfs:/daily"),
        ({"type": "s3", "remote_path": "bucket/daily"}, "s3://bucket/daily"),
        ({"type": "s3", "remote_path": "b/d", "storage_options": {"endpoint_url": "http://m:9"}},
         "s3://b/d at http://m:9"),
        ({"type": "local"}, "/daily"),
    ],
)  # fmt: skip
def test_a_place_is_told_in_one_line(fields: dict[str, Any], place: str) -> None:
    assert place_of(body(**fields)) == place


def test_golden_requests_are_lines_of_a_golden_jsonl() -> None:
    golden = golden_of(body(golden=[{"inputs": {"x": 1}, "expected": 2, "tolerance": 0.5}]))
    (line,) = golden.splitlines()
    assert msgspec.json.decode(line) == {
        "inputs": {"x": 1}, "expected": 2, "command": "", "tolerance": 0.5,
    }  # fmt: skip
    assert golden_of(body()) == ""


def test_a_source_is_given_no_credential_of_the_server(tmp_path: Path) -> None:
    environment = {"PATH": "/bin", "AWS_SECRET_ACCESS_KEY": "s", "HADOOP_CONF_DIR": "/c", "A": "b"}
    found = around(tmp_path, "s3", CONFIG, environment).environment or {}
    assert found["PATH"] == "/bin"
    assert not {"AWS_SECRET_ACCESS_KEY", "HADOOP_CONF_DIR", "A"} & found.keys()
    assert found["HOME"] == str(tmp_path)
    hadoop = around(tmp_path, "hdfs", CONFIG, environment).environment or {}
    assert hadoop["HADOOP_CONF_DIR"] == "/c"


def test_a_source_reaches_none_of_the_platforms_files_but_its_own_folder(tmp_path: Path) -> None:
    confinement = around(tmp_path, "ftp", CONFIG).confinement
    assert confinement.hidden == ("/data",)
    assert confinement.writable == (str(tmp_path),)
