"""Artifacts are made in a process of their own, and are whole or not there, whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from modelcloud.artifacts.snapshot import verify
from modelcloud.artifacts.store import ArtifactStore
from modelcloud.artifacts.tree import Caps
from modelcloud.errors import DeadlineExceeded, ModelcloudError, Overloaded, TooLarge
from support.loops import on_a_loop
from support.programs import program

MIB = 1024 * 1024
CAPS = Caps(bytes=64 * MIB)


def store_in(folder: Path, **given: Any) -> ArtifactStore:
    given = {"caps": CAPS, "deadline_s": 30.0, **given}
    store = ArtifactStore(folder / "artifacts", folder / "staging", **given)
    store.prepare()
    return store


def model(folder: Path, files: dict[str, bytes] | None = None, text: str = "x = 1\n") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.py").write_text(text)
    for name, data in (files or {}).items():
        (folder / name).write_bytes(data)
    return folder


def damage(file: Path) -> None:
    file.chmod(0o600)
    file.write_text("x = 2\n")


def packed(folder: Path) -> Path:
    with tarfile.open(folder.with_suffix(".tgz"), "w:gz") as tar:
        tar.add(folder, arcname=folder.name)
    return folder.with_suffix(".tgz")


def there(folder: Path) -> list[str]:
    return sorted(entry.name for entry in (folder / "artifacts").iterdir())


def half_done(folder: Path) -> list[str]:
    return [entry.name for entry in (folder / "staging").iterdir()]


async def referring_to(*digests: str) -> set[str]:
    return set(digests)


@asynccontextmanager
async def staging(store: ArtifactStore, source: Path) -> AsyncIterator[asyncio.Task[None]]:
    """Under way in a task, and waited for."""

    async def hold() -> None:
        async with store.holding(source):
            pass

    task = asyncio.create_task(hold())
    yield task
    with contextlib.suppress(asyncio.CancelledError, ModelcloudError):
        await task


@on_a_loop
async def test_the_same_bytes_are_stored_once_and_are_whole(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    source = model(tmp_path / "m", {"weights": bytes(MIB)})
    async with store.holding(source) as first, store.holding(packed(source)) as second:
        assert first.digest == second.digest
        assert there(tmp_path) == [first.digest]
        assert verify(Path(first.folder)).digest == first.digest
    assert not half_done(tmp_path)


@on_a_loop
async def test_a_damaged_artifact_is_replaced_when_its_bytes_come_again(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    source = model(tmp_path / "m")
    async with store.holding(source) as staged:
        damage(Path(staged.folder, "model.py"))
    async with store.holding(source) as staged:
        assert verify(Path(staged.folder)).digest == staged.digest


@on_a_loop
async def test_what_nothing_refers_to_is_collected(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    digests = []
    for number in range(3):
        async with store.holding(model(tmp_path / "m", text=f"x = {number}\n")) as staged:
            digests.append(staged.digest)
    assert await store.collect(lambda: referring_to(digests[0])) == set(digests[1:])
    assert there(tmp_path) == digests[:1]
    assert not half_done(tmp_path)


@on_a_loop
async def test_what_is_registered_while_others_are_collected_stays(tmp_path: Path) -> None:
    """It was not referred to when the references were read, and is by the time of removal."""
    store = store_in(tmp_path)
    source = model(tmp_path / "m")
    async with store.holding(source) as staged:
        assert await store.collect(referring_to) == set()

    async def register_meanwhile() -> set[str]:
        async with store.holding(source):
            return set()

    assert await store.collect(register_meanwhile) == set()
    assert there(tmp_path) == [staged.digest]
    assert await store.collect(referring_to) == {staged.digest}


@on_a_loop
async def test_a_refused_archive_leaves_nothing_behind(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    whole = packed(model(tmp_path / "m", {"weights": os.urandom(MIB)}))
    whole.write_bytes(whole.read_bytes()[:-1000])
    with pytest.raises(ModelcloudError, match="cut short"):
        async with store.holding(whole):
            pass
    assert not there(tmp_path)
    assert not half_done(tmp_path)


@on_a_loop
async def test_the_caps_hold_in_the_process_too(tmp_path: Path) -> None:
    store = store_in(tmp_path, caps=Caps(bytes=1000))
    with pytest.raises(TooLarge, match="more than 1000 bytes"):
        async with store.holding(model(tmp_path / "m", {"weights": bytes(2000)})):
            pass
    assert not half_done(tmp_path)


@on_a_loop
async def test_one_that_takes_too_long_is_given_up_and_its_process_is_gone(tmp_path: Path) -> None:
    store = store_in(tmp_path, deadline_s=0.01)
    with pytest.raises(DeadlineExceeded):
        async with store.holding(model(tmp_path / "m")):
            pass
    assert not children()
    assert not half_done(tmp_path)


def children() -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes()
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if b"stage_process" in line and parent == os.getpid():
            found.append(int(folder.name))
    return found


async def until(condition: Callable[[], Any]) -> None:
    while not condition():  # noqa: ASYNC110 — a file has no event
        await asyncio.sleep(0.005)


@on_a_loop
async def test_one_that_is_cancelled_or_killed_leaves_nothing_behind(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    source = model(tmp_path / "m", {f"w{n}": os.urandom(MIB) for n in range(40)})
    async with staging(store, source) as task:
        await until(lambda: list((tmp_path / "staging").rglob("w1")))
        task.cancel()
    assert not children()
    assert not half_done(tmp_path)
    async with staging(store, source) as task:
        await until(lambda: list((tmp_path / "staging").rglob("w1")))
        os.kill(children()[0], signal.SIGKILL)
        with pytest.raises(Overloaded, match="ended early"):
            await task
    assert not there(tmp_path)
    assert not half_done(tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with 4 MiB of space."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = [program("mount"), "-t", "tmpfs", "-o", "size=4m,nr_inodes=200", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("mounting needs root")
    yield folder
    subprocess.run([program("umount"), "-l", str(folder)], check=True)


@on_a_loop
async def test_a_full_disk_is_named_and_left_as_it_was(tmp_path: Path, small_disk: Path) -> None:
    store = store_in(small_disk)
    for source in (
        model(tmp_path / "bytes", {"weights": os.urandom(8 * MIB)}),
        model(tmp_path / "inodes", {f"w{n}": b"" for n in range(300)}),
    ):
        with pytest.raises(Overloaded, match="no space left"):
            async with store.holding(source):
                pass
        assert not there(small_disk)
        assert not half_done(small_disk)
    async with store.holding(model(tmp_path / "small-enough")) as staged:
        assert there(small_disk) == [staged.digest]


def test_what_an_earlier_process_left_is_swept_at_the_start(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    left = tmp_path / "staging" / "stage-x" / "deep"
    left.mkdir(parents=True)
    (left / "f").write_text("x")
    left.chmod(0o550)
    (tmp_path / "staging" / "upload").write_text("x")
    store.prepare()
    assert not half_done(tmp_path)


#: What a control plane does to add an artifact, in one process, so that each step can be its last.
PUBLISH = """
import sys
from pathlib import Path
from modelcloud.artifacts.stage import StageRequest, stage
from modelcloud.artifacts.store import ArtifactStore
from modelcloud.artifacts.tree import Caps
source, folder = map(Path, sys.argv[1:])
caps = Caps(bytes=1 << 20)
work = folder / "staging" / "stage-1"
work.mkdir()
staged = stage(StageRequest(source=str(source), work=str(work), caps=caps))
store = ArtifactStore(folder / "artifacts", folder / "staging", caps, 30.0)
store.publish(Path(staged.folder), staged.digest)
print(staged.digest)
"""


def traced(source: Path, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    shutil.rmtree(folder, ignore_errors=True)
    store_in(folder)
    return subprocess.run(
        [program("strace"), "-f", "-qq", *options, sys.executable, "-c", PUBLISH, source, folder],
        check=False, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("call", ["openat", "write", "fsync", "rename", "mkdir", "chmod", "unlink"])
def test_a_kill_at_any_system_call_leaves_nothing_or_the_whole(tmp_path: Path, call: str) -> None:
    """Each run is killed at the Nth of these calls, from the first one in its folder on."""
    source = packed(model(tmp_path / "m", {"weights": b"w" * 5000, ".hidden": b"h"}))
    folder, log = tmp_path / "data", tmp_path / "calls"
    assert traced(source, folder, "-o", str(log), "-y", "-e", f"trace={call}").returncode == 0
    calls = log.read_text().splitlines()
    first = next(n for n, line in enumerate(calls, 1) if str(folder) in line)
    outcomes = []
    for number in range(first, len(calls) + 2):
        inject = f"inject={call}:signal=KILL:when={number}"
        run = traced(source, folder, "-e", f"trace={call}", "-e", inject)
        outcomes.append(run.returncode)
        for name in there(folder):
            assert verify(folder / "artifacts" / name).digest == name
        store_in(folder)
        assert not half_done(folder)
    assert outcomes[-1] == 0
    assert outcomes[0] != 0


@pytest.mark.slow
def test_everything_is_on_the_disk_before_it_is_in_its_place(tmp_path: Path) -> None:
    """What a loss of power needs; a kill does not show it."""
    source = packed(model(tmp_path / "m", {"weights": b"w" * 5000}))
    folder, log = tmp_path / "data", tmp_path / "calls"
    traced(source, folder, "-o", str(log), "-y", "-e", "trace=fsync,rename")
    calls = [line for line in log.read_text().splitlines() if str(folder) in line]
    moved = next(n for n, line in enumerate(calls) if "rename(" in line)
    before = "\n".join(calls[:moved])
    for name in ("model.py", "weights", "manifest.json", "/m>"):
        assert name in before
    assert [line.partition("(")[0].split()[-1] for line in calls[moved:]] == ["rename", "fsync"]
    assert "/artifacts>" in calls[-1]
