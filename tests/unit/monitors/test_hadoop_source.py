"""How the program `hadoop` is called: without a shell, without a secret on its command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelcloud.errors import Overloaded, Unauthorized, UsageError
from modelcloud.monitors.address import Addresses
from modelcloud.monitors.source import SourceSpec
from modelcloud.monitors.sources.hadoop import Hadoop

RECORDING = """#!/bin/sh
echo "WARN on standard error is no failure" >&2
echo "$@" >> {folder}/calls
if [ "$2" = -conf ]; then cat "$3" "$3" >> {folder}/secret; fi
{rest}
"""


def hadoop(folder: Path, rest: str, said: list[str] | None = None, **given: str) -> Hadoop:
    program = folder / "hadoop"
    program.write_text(RECORDING.format(folder=folder, rest=rest))
    program.chmod(0o755)
    spec = SourceSpec(
        type="hdfs", path="/models", hadoop_bin=str(program), addresses=Addresses(anything=True),
        **given,  # type: ignore[arg-type]
    )  # fmt: skip
    return Hadoop(spec, (said if said is not None else []).append)


def test_a_users_password_reaches_the_program_and_is_nowhere_else(tmp_path: Path) -> None:
    said: list[str] = []
    source = hadoop(tmp_path, "echo '1000 5 regular file/donefile'", said, fs_ugi="u,pass<word",
                    fs_name="hdfs://h:1")  # fmt: skip
    (mark,) = source.marks("donefile")
    assert mark is not None
    assert (mark.modified, mark.size, mark.exact) == (1.0, 5, True)
    call = (tmp_path / "calls").read_text()
    assert "pass<word" not in call + "".join(said)
    assert "-Dfs.default.name=hdfs://h:1 -stat" in call
    assert (tmp_path / "secret").read_text().count("<value>u,pass&lt;word</value>") == 2
    assert " -conf /dev/fd/" in call


@pytest.mark.parametrize("name", ["m*", "m?", "m[1]", "{a,b}", "m\\"])
def test_a_name_that_the_client_would_read_as_a_pattern_is_refused(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(UsageError, match="plain name"):
        hadoop(tmp_path, "exit 0").marks(name)
    assert not (tmp_path / "calls").exists()


def test_only_the_exit_status_tells_a_failure(tmp_path: Path) -> None:
    missing = 'echo "stat: \\`/models/x\': No such file or directory" >&2; exit 1'
    assert hadoop(tmp_path, missing).marks("x") == [None]
    assert hadoop(tmp_path, missing).read("x", 10) is None
    with pytest.raises(Overloaded, match="Connection refused"):
        hadoop(tmp_path, "echo 'ls: Connection refused' >&2; exit 255").marks("x")
    with pytest.raises(Unauthorized, match="--fs_ugi"):
        hadoop(tmp_path, "echo 'stat: Permission denied: user=u' >&2; exit 1").marks("x")
    with pytest.raises(UsageError, match="more than 4 bytes"):
        hadoop(tmp_path, "echo 12345").read("x", 4)
