"""The deployment log: a file per service, a line per step, whatever the step says."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from modelcloud.control.observe.deployment_log import DeploymentLog
from modelcloud.control.observe.log_files import Line, deployment_log, read
from modelcloud.errors import InvalidInput
from modelcloud.node import logs as node_logs

NOW = 1_700_000_000.25
AT = "2023-11-14T22:13:20.250Z"


def test_lines_are_written_as_they_are_read_and_go_on_after_a_restart(tmp_path: Path) -> None:
    for text in ("rollout 3: loading\nrollout 3: serving", "deployment 1: stopped"):
        log = DeploymentLog(tmp_path, wall=lambda: NOW)
        log.write("fib", text)
        log.close()
    assert read(deployment_log(tmp_path, "fib")).lines == [
        Line(AT, "rollout 3", "loading"),
        Line(AT, "rollout 3", "serving"),
        Line(AT, "deployment 1", "stopped"),
    ]


def test_a_control_character_is_spelled_out(tmp_path: Path) -> None:
    log = DeploymentLog(tmp_path, wall=lambda: NOW)
    log.write("fib", "red \x1b[31m\r2023-11-14T22:13:20.250Z forged\u2028\u202eline")
    log.close()
    assert read(deployment_log(tmp_path, "fib")).lines == [
        Line(AT, "", "red \\x1b[31m\\r2023-11-14T22:13:20.250Z forged\\u2028\\u202eline")
    ]


def test_lines_of_many_threads_stay_whole_through_rotations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_logs, "FILE_BYTES", 20_000)
    log = DeploymentLog(tmp_path)

    def write(name: str) -> None:
        for number in range(100):
            log.write("fib", f"rollout 1: {name} {number} {'x' * 100}")

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    lines = read(deployment_log(tmp_path, "fib"), 5000).lines
    assert sorted(line.text.rpartition(" ")[0] for line in lines) == sorted(
        f"{name} {number}" for name in "abcd" for number in range(100)
    )


def test_more_services_than_files_may_be_open_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelcloud.control.observe.deployment_log.OPEN_FILES", 2)
    log = DeploymentLog(tmp_path)
    for number in range(12):
        log.write(f"s{number % 4}", str(number))
    log.close()
    for service in range(4):
        found = [line.text for line in read(deployment_log(tmp_path, f"s{service}")).lines]
        assert found == [str(service), str(service + 4), str(service + 8)]


def test_removing_a_services_logs_removes_those_of_its_versions_and_no_other(
    tmp_path: Path,
) -> None:
    log = DeploymentLog(tmp_path)
    log.write("fib", "one")
    log.write("other", "one")
    (tmp_path / "fib" / "1.log").write_text("text")
    log.remove("fib")
    log.remove("fib")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
    log.write("fib", "of a new service with its name")
    log.close()
    assert len(read(deployment_log(tmp_path, "fib")).lines) == 1


def test_only_the_logs_of_known_services_and_versions_are_kept(tmp_path: Path) -> None:
    log = DeploymentLog(tmp_path)
    for service in ("fib", "gone", "new"):
        log.write(service, "one")
    for name in ("1.log", "2.log", "2.log.1", "12.log"):
        (tmp_path / "fib" / name).touch()
    (tmp_path / ".0123").mkdir()  # a removal that was broken off
    found = log.found()
    del found["new"]  # it came after the look
    log.keep_only(found, {"fib": {1, 12}})
    log.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fib", "new"]
    there = sorted(path.name for path in (tmp_path / "fib").iterdir())
    assert there == ["1.log", "12.log", "deployment.log"]


def test_a_name_that_leads_elsewhere_is_refused_and_nothing_removed(tmp_path: Path) -> None:
    log = DeploymentLog(tmp_path / "logs")
    (tmp_path / "kept").touch()
    with pytest.raises(InvalidInput):
        log.remove("..")
    with pytest.raises(InvalidInput):
        log.write("../../x", "text")
    assert (tmp_path / "kept").exists()


def test_a_file_that_cannot_be_written_is_said_once_and_stops_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "fib").touch()  # where the folder should be
    log = DeploymentLog(tmp_path)
    log.write("fib", "one")
    log.write("fib", "two")
    log.close()
    assert len(caplog.records) == 1
    assert "cannot write" in caplog.text
