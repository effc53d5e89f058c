"""What a command line may say, and what a log shows of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modelcloud.cli.main import main
from modelcloud.errors import UsageError
from modelcloud.monitors.settings import MonitorSettings
from modelcloud.monitors.source import SourceSpec
from modelcloud.monitors.watch import FIRST_RETRY_S, LONGEST_REFUSAL_S, refusal_delay, retry_delay

HDFS = {"type": "hdfs", "path": "/", "hadoop_bin": "/h", "fs_ugi": "u,s3cret", "fs_name": "afs://x"}
FTP = {"type": "ftp", "path": "/", "host": "h", "username": "u", "password": "s3cret"}


def settings(source: dict[str, Any] | None = None, **given: Any) -> MonitorSettings:
    names = {
        "remote_model_name": "m.tar.gz", "remote_donefile_name": "donefile", "local_path": ".",
        "local_model_name": "m", "unpacked_filename": "m", **given,
    }  # fmt: skip
    return MonitorSettings(source=SourceSpec(**(source or FTP)), **names)


def test_the_log_shows_every_option_of_the_seed_in_its_order_and_no_secret() -> None:
    shown = settings(HDFS).shown()
    assert [name for name, _ in shown] == [
        "hadoop_bin", "fs_name", "fs_ugi", "remote_path", "remote_model_name",
        "remote_donefile_name", "local_model_name", "local_path", "local_timestamp_file",
        "local_tmp_path", "interval",
    ]  # fmt: skip
    assert dict(shown)["interval"] == "10"
    for spec in (HDFS, FTP):
        assert "s3cret" not in str(settings(spec).shown())
        assert "s3cret" not in repr(settings(spec))
        assert "s3cret" not in settings(spec).identity()


@pytest.mark.parametrize(
    ("source", "given", "told"),
    [
        ({"type": "gopher", "path": "/"}, {}, "accepted: general, hdfs, afs, ftp"),
        ({"type": "general", "path": "/"}, {}, "needs --general_host"),
        ({"type": "afs", "path": "/"}, {}, "needs --hadoop_bin"),
        ({"type": "ftp", "path": "/"}, {}, "needs --ftp_host"),
        ({**HDFS, "password": "x"}, {}, "--ftp_password goes with --type ftp, not hdfs"),
        ({**FTP, "fs_ugi": "x"}, {}, "--fs_ugi goes with --type hdfs or afs"),
        ({**FTP, "options": {"a": 1}}, {}, "storage options go with"),
        (FTP, {"unpacked_filename": ""}, "--unpacked_filename"),
        (FTP, {"unpacked_filename": "../m"}, "leads out"),
        (FTP, {"remote_model_name": "../m.tgz"}, "leads out"),
        (FTP, {"remote_model_name": "-rf"}, "--remote_model_name"),
        (FTP, {"remote_donefile_name": "a\r\nDELE x"}, "--remote_donefile_name"),
        (FTP, {"remote_donefile_name": "m.tar.gz"}, "are the same"),
    ],
)
def test_options_that_do_not_fit_are_told_by_name(
    source: dict[str, Any], given: dict[str, Any], told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        settings(source, **given).check()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "--type"),
        (["--type", "ftp"], "--remote_path"),
        (["--unknown", "x"], "--unknown"),
        (["--interval", "0"], "seconds"),
        (["--ftp_port", "x"], "whole number"),
        (["--ftp_password", "a", "--ftp_password_file", "/dev/null"], "not both"),
        (["--ftp_password_file", "/no/such"], "No such file"),
        (["--ftp_password_file", "/dev/null"], "holds no password"),
        (["--storage_options_file", "/dev/null"], "no JSON object"),
        (["--general_host", "h"], "--general_host goes with --type general"),
    ],
)
def test_a_wrong_command_line_ends_with_2_and_says_why(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    needed = [
        "--type", "ftp", "--ftp_host", "h", "--remote_path", "/", "--remote_model_name", "m",
        "--remote_donefile_name", "d", "--local_path", str(tmp_path), "--local_model_name", "m",
    ]  # fmt: skip
    line = arguments if not arguments or arguments[0] == "--type" else [*needed, *arguments]
    assert main(["monitor", *line]) == 2
    assert told in capsys.readouterr().err


def test_a_source_that_is_away_is_asked_again_within_one_interval() -> None:
    for interval in (0.2, 10.0, 3600.0):
        delays = [retry_delay(failures, interval, 1.0) for failures in range(1, 60)]
        assert delays == sorted(delays)
        assert delays[0] == min(FIRST_RETRY_S, interval)
        assert delays[-1] == interval
        assert retry_delay(60, interval, 0.0) == interval / 2


def test_a_refused_model_is_pulled_again_ever_more_rarely() -> None:
    delays = [refusal_delay(refusals, 10.0, 1.0) for refusals in range(1, 60)]
    assert delays == sorted(delays)
    assert delays[0] == 10.0
    assert delays[-1] == LONGEST_REFUSAL_S
    assert refusal_delay(60, 3600.0, 1.0) == 3600.0
