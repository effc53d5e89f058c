"""The node over real processes: what it does when they die, hang, fail or are no longer wanted."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from modelcloud.dataplane.messages import AdminRequest, AdminResponse
from modelcloud.engines.local import LocalEngine
from modelcloud.errors import ModelcloudError, NotFound
from modelcloud.node import supervisor as supervisor_module
from modelcloud.node import worker as worker_module
from modelcloud.node.brake import LIMIT
from modelcloud.node.processes import BOOTSTRAP
from modelcloud.types import Routing, State
from support import node as support
from support.loops import on_a_loop
from support.node import candidate, ready, running, serving, spec, warm
from support.node_children import (
    OTHERS,
    children,
    descendants,
    descriptors,
    gateways,
    gone,
    names,
    proc,
    serve_one,
    until_descriptors,
)


@pytest.fixture(autouse=True)
def _others() -> None:
    OTHERS.clear()
    OTHERS.update(children())


@on_a_loop
async def test_ready_workers_are_routed_to_and_their_signature_is_known() -> None:
    async with running() as node:
        engine = LocalEngine(node.supervisor)
        node.want(serving(spec(1), replicas=2))
        await node.until(lambda seen: {n: len(ids) for n, ids in seen.routed.items()} == {1: 2})
        seen = engine.observe(support.SERVICE)
        assert seen.signatures == {1: {"options": [], "commands": []}}
        assert seen.degraded == ""
        assert engine.observe("another").workers == ()


@on_a_loop
async def test_a_killed_worker_is_replaced_and_the_others_stay() -> None:
    async with running() as node:
        node.want(serving(spec(1), replicas=2))
        killed, other = await node.until_ready(1, 2)
        os.kill(killed, signal.SIGKILL)
        await node.until(lambda seen: killed not in ready(seen, 1) and len(ready(seen, 1)) == 2)
        assert other in ready(node.seen, 1)
        assert [worker.restarts for worker in node.seen.workers] == [0, 1]
        await node.until(lambda seen: seen.routed == {1: tuple(w.id for w in seen.workers)})
        assert node.seen.degraded == ""


@on_a_loop
async def test_many_deaths_at_once_are_all_seen() -> None:
    async with running() as node:
        node.want(serving(spec(1), replicas=12))
        before = await node.until_ready(1, 12)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        await node.until(
            lambda seen: len(ready(seen, 1)) == 12 and not set(before) & set(ready(seen, 1))
        )
        assert children() == {*ready(node.seen, 1), *gateways(node)}


@on_a_loop
async def test_a_crash_loop_is_braked_and_said(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    async with running() as node:
        node.want(serving(spec(1, die=7, starts=str(starts))))
        seen = await node.until(lambda seen: "restarted slowly" in seen.degraded)
        assert "exited with status 7" in seen.degraded
        assert node.supervisor.worker_deaths == LIMIT
        assert len(starts.read_text().split()) == LIMIT


@on_a_loop
async def test_a_reason_names_files_by_their_places_in_the_artifact(tmp_path: Path) -> None:
    snapshot = str(tmp_path / "artifacts" / "d1")
    failing = spec(1, fail=f"{snapshot}/pkg/model.py: no such weights ({snapshot}/model.py:4)")
    async with running() as node:
        node.want(candidate(replace(failing, snapshot=snapshot)))
        seen = await node.until(lambda seen: 1 in seen.failures)
        assert seen.failures[1] == "pkg/model.py: no such weights (model.py:4)"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"exit_in_load": 9}, "exited with status 9 while loading; its last output:\n"),
        ({"exit_in_load": 9}, "\n  the last words"),
        ({"fail": "no such weights"}, "no such weights"),
    ],
)
@on_a_loop
async def test_a_candidate_that_fails_is_reported_and_not_restarted(
    options: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    starts = tmp_path / "starts"
    async with running() as node:
        old = await serve_one(node)
        bad = candidate(spec(2, **options, starts=str(starts)))
        node.want(serving(spec(1)), bad)
        seen = await node.until(lambda seen: 2 in seen.failures and len(seen.workers) == 1)
        assert reason in seen.failures[2]
        assert ready(seen, 1) == [old]
        assert len(starts.read_text().split()) == 1
        node.want(serving(spec(1)))
        await node.until(lambda seen: not seen.failures)


@on_a_loop
async def test_a_worker_that_says_what_is_no_message_is_killed() -> None:
    async with running() as node:
        node.want(candidate(spec(1, garbage=True, load_s=60)))
        seen = await node.until(lambda seen: 1 in seen.failures and not seen.workers)
        assert "killed by SIGKILL while loading" in seen.failures[1]


@on_a_loop
async def test_without_descriptors_a_start_fails_and_the_next_one_after_that_does_not() -> None:
    async with running() as node:
        old = await serve_one(node)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors(), hard))
        try:
            node.want(serving(spec(1)), candidate(spec(2)))
            seen = await node.until(lambda seen: 2 in seen.failures)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert "Too many open files" in seen.failures[2]
        node.want(serving(spec(1)), candidate(spec(3)))
        await node.until_ready(3)
        assert ready(node.seen, 1) == [old]


@on_a_loop
async def test_a_node_that_stood_still_itself_blames_no_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jump = 0.0
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + jump)
    monkeypatch.setattr(supervisor_module, "time", clock)
    async with running() as node:
        node.want(serving(spec(1), replicas=2))
        killed, other = await node.until_ready(1, 2)
        jump = 3600.0
        os.kill(killed, signal.SIGKILL)
        await node.until(lambda seen: len(set(ready(seen, 1)) - {killed}) == 2)
        assert other in ready(node.seen, 1)
        assert (node.supervisor.worker_deaths, node.supervisor.gateway_deaths) == (1, 0)


@on_a_loop
async def test_the_detail_of_a_failed_load_is_in_its_log(tmp_path: Path) -> None:
    async with running(log_dir=str(tmp_path)) as node:
        lines: list[str] = []
        node.logs.subscribe(lambda line: lines.append(f"{line.generation} {line.text}"))
        node.want(candidate(spec(1, fail="bad")))
        await node.until(lambda seen: 1 in seen.failures)
        assert lines == ["1 worker 1 loads", "1 why", "1 so"]
    assert "worker 1 generation 1 | why" in (tmp_path / "workers.log").read_text()


@on_a_loop
async def test_a_load_that_hangs_is_killed_at_its_timeout_with_its_stack_in_the_log() -> None:
    async with running() as node:
        node.want(candidate(spec(1, hang=True, timeout_s=0.5)))
        seen = await node.until(lambda seen: 1 in seen.failures and not seen.workers)
        assert "still loading after 0.5 s" in seen.failures[1]
        assert "_load" in "\n".join(node.logs.tail(1, 50))


@on_a_loop
async def test_a_stopped_worker_is_replaced() -> None:
    async with running() as node:
        stopped = await serve_one(node)
        os.kill(stopped, signal.SIGSTOP)
        await node.until(lambda seen: ready(seen, 1) not in ([stopped], []))
        await gone(stopped)


@on_a_loop
async def test_a_worker_that_answers_no_ping_is_replaced() -> None:
    async with running(health_timeout_s=1.5) as node:
        mute = await serve_one(node, mute=True)
        await node.until(lambda seen: "did not answer a ping" in seen.degraded)
        await gone(mute)
        await node.until_ready(1)


@on_a_loop
async def test_a_worker_that_a_gateway_calls_overdue_is_replaced() -> None:
    async with running() as node:
        hung = await serve_one(node)
        assert await node.ask("overdue 1") == "pong"
        await node.until(lambda seen: ready(seen, 1) not in ([hung], []))
        await gone(hung)
        assert "main" in "\n".join(node.logs.tail(1, 50))
        assert node.supervisor.worker_deaths == 1


@on_a_loop
async def test_a_worker_that_ignores_stop_and_sigterm_is_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_module, "STOP_GRACE_S", 0.2)
    monkeypatch.setattr(worker_module, "TERM_GRACE_S", 0.2)
    async with running() as node:
        deaf = await serve_one(node, deaf=True)
        node.want()
        await node.until(lambda seen: not seen.workers)
        await gone(deaf)
        assert node.supervisor.worker_deaths == 0


@on_a_loop
async def test_a_switch_is_one_table_and_the_old_worker_stays_until_no_gateway_uses_it() -> None:
    async with running() as node:
        old = await serve_one(node)
        await node.ask("hold")
        node.want(serving(spec(1)), candidate(spec(2)))
        await node.until_ready(2)
        node.want(serving(spec(2)))
        seen = await node.until(lambda seen: list(seen.routed) == [2])
        assert [w.state for w in seen.workers if w.pid == old] == [State.DRAINING]
        assert 1 not in seen.settled
        await node.ask("release")
        await node.until(lambda seen: [w.generation for w in seen.workers] == [2])
        tables = await node.ask("tables")
        assert tables[tables.index([1]) :] == [[1], [2]]


@on_a_loop
async def test_a_generation_kept_warm_is_settled_and_back_in_one_table() -> None:
    async with running() as node:
        old = await serve_one(node)
        node.want(serving(spec(1)), candidate(spec(2)))
        await node.until_ready(2)
        node.want(warm(spec(1)), serving(spec(2)))
        seen = await node.until(lambda seen: list(seen.routed) == [2] and 1 in seen.settled)
        assert ready(seen, 1) == [old]
        node.want(serving(spec(1)))
        await node.until_routed(1)
        assert ready(node.seen, 1) == [old]


@on_a_loop
async def test_a_draining_worker_that_is_wanted_again_serves_again() -> None:
    async with running() as node:
        old = await serve_one(node)
        await node.ask("hold")
        node.want()
        seen = await node.until(lambda seen: not seen.routed)
        assert [w.state for w in seen.workers] == [State.DRAINING]
        node.want(serving(spec(1)))
        await node.until_routed(1)
        await node.ask("release")
        assert ready(node.seen, 1) == [old]


@on_a_loop
async def test_a_loading_candidate_that_is_not_wanted_any_more_is_ended() -> None:
    async with running() as node:
        node.want(candidate(spec(1, hang=True)))
        await node.until(lambda seen: [w.state for w in seen.workers] == [State.LOADING])
        node.want()
        await node.until(lambda seen: not seen.workers)
        assert node.seen.failures == {}


@on_a_loop
async def test_a_killed_gateway_is_back_with_the_table_and_refuses_nobody() -> None:
    async with running() as node:
        await serve_one(node)
        (gateway,) = gateways(node)
        os.kill(gateway, signal.SIGKILL)
        assert await node.ask("tables") == [[1]]  # connected while there was none
        assert node.supervisor.gateway_deaths == 1


@on_a_loop
async def test_routed_waits_for_every_gateway() -> None:
    async with running(gateways=2) as node:
        await serve_one(node)
        slow, _ = sorted(gateways(node))
        node.want(serving(spec(1)), candidate(spec(2)))
        await node.until_ready(2)
        os.kill(slow, signal.SIGSTOP)
        try:
            node.want(warm(spec(1)), serving(spec(2)))
            await node.supervisor.stats(0.2)  # a while in which the other one takes the table
            assert list(node.seen.routed) == [1]
        finally:
            os.kill(slow, signal.SIGCONT)
        await node.until_routed(2)
        assert len(await node.supervisor.stats(support.PATIENCE_S)) == 2


@on_a_loop
async def test_a_routing_is_followed_once_every_gateway_keeps_to_it() -> None:
    async with running(gateways=2) as node:
        await serve_one(node)
        told = asyncio.Event()
        node.supervisor.on_routing(told.set)
        slow, _ = sorted(gateways(node))
        os.kill(slow, signal.SIGSTOP)
        try:
            asked = node.supervisor.route(Routing())
            assert node.supervisor.route(Routing()) == asked, "it is the same one"
            await node.supervisor.stats(0.2)  # a while in which the other one takes the table
            assert node.supervisor.routing < asked
            assert not told.is_set()
        finally:
            os.kill(slow, signal.SIGCONT)
        await asyncio.wait_for(told.wait(), support.PATIENCE_S)
        assert node.supervisor.routing == asked


@on_a_loop
async def test_a_gateway_that_cannot_start_says_why() -> None:
    with pytest.raises(ModelcloudError, match=r"(?s)status 1.*No module named 'support.missing'"):
        async with running(gateway_module="support.missing"):
            pass


@on_a_loop
async def test_admin_requests_are_answered_and_a_failure_tells_the_client_nothing() -> None:
    async def answer(request: AdminRequest) -> AdminResponse:
        if request.path == "/known":
            raise NotFound("no such rollout")
        if request.path == "/bug":
            raise RuntimeError("a secret")
        return AdminResponse(id=request.id, status=200, body=b"fine")

    async with running(on_admin=answer) as node:
        assert await node.ask("admin /ok") == {"status": 200, "body": "fine"}
        known = await node.ask("admin /known")
        assert (known["status"], json.loads(known["body"])) == (404, {"error": "no such rollout"})
        bug = await node.ask("admin /bug")
        assert bug["status"] == 500
        assert "secret" not in bug["body"]
        assert json.loads(bug["body"])["error_id"]


@on_a_loop
async def test_what_a_worker_leaves_behind_is_killed_and_reaped() -> None:
    async with running() as node:
        worker = await serve_one(node, helper=True)
        (helper,) = children() - {worker} - {pid for pid in children() if _is_gateway(pid)}
        os.kill(worker, signal.SIGKILL)
        await gone(helper)


def _is_gateway(pid: int) -> bool:
    return b"stub_gateway" in proc(pid, "cmdline")


@on_a_loop
async def test_children_see_no_admin_token() -> None:
    token = "a-token-of-the-test"
    async with running(admin_token=token, environ={"SOME_NAME": token}) as node:
        await serve_one(node)
        for pid in children():
            for file in ("environ", "cmdline"):
                assert token.encode() not in proc(pid, file)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (f'exec {sys.executable} -I -S "$@"', "has no msgspec: run `"),
        ("", "could not be started: [Errno 13] Permission denied"),
    ],
)
@on_a_loop
async def test_an_interpreter_that_cannot_run_a_worker_is_named_with_the_remedy(
    tmp_path: Path, script: str, reason: str
) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755 if script else 0o644)
    async with running() as node:
        node.want(candidate(spec(1, python=str(python))))
        seen = await node.until(lambda seen: 1 in seen.failures)
        assert reason in seen.failures[1]


def test_a_worker_sees_the_package_but_not_what_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "modelcloud" / "tool").mkdir(parents=True)
    for file in ("__init__.py", "tool/__init__.py"):
        (tmp_path / "modelcloud" / file).touch()
    (tmp_path / "beside.py").touch()
    (tmp_path / "modelcloud" / "tool" / "run.py").write_text(
        "import importlib.util, sys\n"
        "def main(fd):\n    print(fd, sys.argv, importlib.util.find_spec('beside'))\n"
    )
    argv = [sys.executable, "-c", BOOTSTRAP, str(tmp_path / "modelcloud"), "modelcloud.tool.run"]
    done = subprocess.run([*argv, "5"], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout == "5 ['-c'] None\n"


@on_a_loop
async def test_updates_leave_no_process_descriptor_or_file() -> None:
    async with running() as node:
        await serve_one(node)
        before = descriptors()
        for generation in range(2, 8):
            node.want(serving(spec(generation - 1)), candidate(spec(generation)))
            await node.until_ready(generation)
            node.want(serving(spec(generation)))
            await node.until_routed(generation)
            await node.until(lambda seen: len(seen.workers) == 1)
        await until_descriptors(before)
        give_up = time.monotonic() + 20
        while names(node.run_dir.path) != ["lock", "w7"]:  # removed by a thread
            assert time.monotonic() < give_up, names(node.run_dir.path)
            await asyncio.sleep(0.01)
        assert len(children()) == 2


@on_a_loop
async def test_stop_leaves_nothing() -> None:
    before = descriptors()
    async with running(gateways=2) as node:
        node.want(serving(spec(1, helper=True), replicas=2), candidate(spec(2, hang=True)))
        await node.until_ready(1, 2)
        folder = node.run_dir.path
    assert children() == set()
    assert not folder.exists()
    assert descriptors() == before


def test_a_node_killed_outright_leaves_no_child(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys\n"
        "from support.node import *\n"
        "async def main():\n"
        "    async with running() as node:\n"
        "        node.want(serving(spec(1), replicas=2))\n"
        "        await node.until_ready(1, 2)\n"
        "        print('up', flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(support.TESTS), "TMPDIR": str(tmp_path),
               "XDG_RUNTIME_DIR": ""}  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, env=environ, text=True
    ) as node:
        assert node.stdout is not None
        assert node.stdout.readline() == "up\n"
        below = descendants(node.pid)
        assert len(below) == 3
        node.kill()

    async def wait() -> None:
        await asyncio.gather(*map(gone, below))

    asyncio.run(wait())
