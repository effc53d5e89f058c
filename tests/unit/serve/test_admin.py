"""What the node answers at its own addresses, over an in-memory engine."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from modelcloud.dataplane.messages import CommandStats, Stats
from modelcloud.dataplane.metrics import BUCKETS
from modelcloud.rollout.records import RolloutState
from modelcloud.sdk.declare import RESERVED
from modelcloud.serve.access import MAX_GUESSES, Action
from modelcloud.serve.admin import ADDRESSES, MAX_BODY, admin_routes
from support.loops import on_a_loop
from support.serving import World, decoded

PATHS = sorted({address.path.replace("*", "1") for address in ADDRESSES})
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "JUNK")
OPEN = {
    (path.replace("*", "1"), method)
    for path, of, action, *_ in ADDRESSES
    if action is Action.READ
    for method in (of, "HEAD" if of == "GET" else of)
}


# ---- who may


@pytest.mark.parametrize("path", PATHS)
@on_a_loop
async def test_without_the_token_every_method_but_reading_is_refused(
    tmp_path: Path, path: str
) -> None:
    world = World(tmp_path, host="0.0.0.0", admin_token="secret")
    await world.serve()
    for method in METHODS:
        answer = await world.ask(method, path)
        if (path, method) in OPEN:
            assert answer.status in {200, 404}, method
        else:
            assert answer.status == 401, method
            assert ("www-authenticate", "Bearer") in answer.headers
    assert len(world.reconciler.rollouts()) == 1


@pytest.mark.parametrize("path", PATHS)
@on_a_loop
async def test_with_the_token_every_address_answers_its_own_methods_and_no_other(
    tmp_path: Path, path: str
) -> None:
    world = World(tmp_path, host="0.0.0.0", admin_token="secret")
    await world.serve()
    own = {address.method for address in ADDRESSES if address.path.replace("*", "1") == path}
    own |= {"HEAD"} if "GET" in own else set()
    for method in METHODS:
        answer = await world.ask(method, path, authorization="Bearer secret")
        assert (answer.status == 405) is (method not in own), method


@on_a_loop
async def test_who_guesses_through_a_proxy_does_not_lock_out_who_comes_directly(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, admin_token="secret")
    await world.serve()
    for guess in range(MAX_GUESSES + 1):
        # What the header says is the client's to choose, and gains it no further guesses.
        wrong = await world.ask(
            "POST", "/setup", authorization="Bearer wrong", x_forwarded_for=f"10.0.0.{guess}"
        )
    assert wrong.status == 429
    right = await world.ask("POST", "/setup?wait=false", authorization="Bearer secret")
    assert right.status != 429


@on_a_loop
async def test_ten_wrong_tokens_in_a_minute_are_429_until_it_is_over(tmp_path: Path) -> None:
    world = World(tmp_path, admin_token="secret")
    await world.serve()
    for _ in range(MAX_GUESSES):
        wrong = await world.ask("POST", "/setup", authorization="Bearer wröng")
        assert wrong.status == 401
    for token in ("wrong", "secret"):
        limited = await world.ask("POST", "/setup", authorization=f"Bearer {token}")
        assert limited.status == 429
        assert dict(limited.headers)["retry-after"] == "60"
    world.now += 61
    assert (await world.ask("POST", "/setup", authorization="Bearer secret")).status == 200


def test_every_address_has_a_reserved_name_so_that_no_command_hides_it() -> None:
    first_segments = {route.path.split("/")[1] for route in admin_routes()} - {"", "docs.json"}
    assert first_segments | {"healthz"} <= RESERVED


# ---- reading


@on_a_loop
async def test_before_the_first_generation_serves_it_says_so(tmp_path: Path) -> None:
    world = World(tmp_path, holds=True)
    await world.updates.begin_first()
    assert decoded(await world.ask("GET", "/healthcheck")) == {"status": "INITIALIZING"}
    ready = await world.ask("GET", "/readyz")
    assert ready.status == 503
    assert decoded(ready)["workers"] == {"ready": 0, "wanted": 2}
    assert (await world.ask("GET", "/meta")).status == 200
    assert (await world.ask("GET", "/docs.json")).status == 200
    assert (await world.ask("POST", "/setup", {})).status == 503


@on_a_loop
async def test_meta_says_what_serves_and_since_when(tmp_path: Path) -> None:
    world = World(tmp_path, options={"model": "small"})
    await world.serve()
    world.stats = [_stats(last_call_s=-1.0), _stats(last_call_s=2.5), _stats(last_call_s=0.25)]
    world.now += 3
    for path in ("/", "/meta"):
        meta = decoded(await world.ask("GET", path))
        assert (meta["service"], meta["version"], meta["generation"]) == ("fib", 1, 1)
        assert (meta["millisRunning"], meta["millisSinceLastCommand"]) == (3000, 250)
        assert {o["name"]: o["value"] for o in meta["options"]} == {
            "model": "small", "version": "0.1.0",
        }  # fmt: skip
        assert [c["name"] for c in meta["commands"]] == ["fib", "draw", "raw", "page"]
        assert meta["commands"][0]["inputs"][0]["name"] == "n"


@on_a_loop
async def test_setup_shows_schema_and_current_values(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.serve()
    await world.ask("POST", "/setup", {"model": "small"})
    setup = decoded(await world.ask("GET", "/setup"))
    assert setup["values"] == {"model": "small", "version": "0.1.0"}
    assert setup["schema"]["properties"]["model"]["enum"] == ["big", "small"]


@on_a_loop
async def test_losing_every_worker_is_not_ready_and_failed(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.serve()
    assert (await world.ask("GET", "/readyz")).status == 200
    assert decoded(await world.ask("GET", "/healthcheck")) == {"status": "RUNNING"}
    world.holds = True
    for worker in world.engine.workers():
        world.engine.kill(worker)
    world.engine.acknowledge()
    ready = await world.ask("GET", "/readyz")
    assert ready.status == 503
    assert "no worker is ready" in decoded(ready)["reasons"]
    health = await world.ask("GET", "/healthcheck")
    assert (health.status, decoded(health)) == (503, {"status": "FAILED"})


@on_a_loop
async def test_below_strength_it_is_ready_and_degraded_with_the_reason(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.serve()
    world.holds = True
    world.engine.kill(world.engine.workers()[0])
    world.engine.acknowledge()
    ready = await world.ask("GET", "/readyz")
    assert ready.status == 200
    record = decoded(ready)
    assert record["workers"] == {"ready": 1, "wanted": 2}
    assert record["degraded"] is True
    assert record["reasons"] == ["1 of 2 workers ready"]
    assert decoded(await world.ask("GET", "/healthcheck")) == {"status": "DEGRADED"}


@on_a_loop
async def test_while_an_update_loads_the_word_is_updating_and_it_stays_ready(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    await world.serve()
    world.holds = True
    assert (await world.ask("POST", "/setup", {}, query="wait=false")).status == 202
    assert decoded(await world.ask("GET", "/healthcheck")) == {"status": "UPDATING"}
    assert (await world.ask("GET", "/readyz")).status == 200


@on_a_loop
async def test_a_draining_server_is_not_ready(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.serve()
    world.admin.stopping = True
    ready = await world.ask("GET", "/readyz")
    assert (ready.status, decoded(ready)["reasons"]) == (503, ["the server is stopping"])


@on_a_loop
async def test_the_docs_page_its_files_and_nothing_else_are_served(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.serve()
    page = await world.ask("GET", "/redoc")
    assert page.content_type.startswith("text/html")
    assert (await world.ask("GET", "/redoc/swagger-ui-bundle.js")).status == 200
    assert (await world.ask("GET", "/redoc/templates.py")).status == 404


@on_a_loop
async def test_metrics_count_rollouts_by_how_they_ended(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.serve()
    await world.ask("POST", "/setup", {"model": "small"})
    metrics = await world.ask("GET", "/metrics")
    assert metrics.content_type.startswith("text/plain")
    assert b'modelcloud_rollouts_total{outcome="succeeded",service="fib"} 2.0' in metrics.body
    assert b'modelcloud_generation{service="fib"} 2.0' in metrics.body


# ---- updating


@on_a_loop
async def test_options_merge_over_the_current_ones_and_the_answer_comes_after_the_switch(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, options={"version": "7"})
    await world.serve()
    answer = await world.ask("POST", "/setup", {"model": "small"})
    assert answer.status == 200
    assert decoded(answer) == {
        "success": True, "generation": 2, "version": 1, "rollout": "2", "seconds": 0.0,
    }  # fmt: skip
    assert list(world.observe().routed) == [2]
    serving = world.reconciler.serving
    assert serving is not None
    assert serving.options == {"version": "7", "model": "small"}
    assert serving.inherited == ("version",)


@on_a_loop
async def test_options_of_the_command_line_stay_text_until_they_are_named(tmp_path: Path) -> None:
    world = World(tmp_path, options_text={"model": "big", "version": "7"})
    await world.serve()
    await world.ask("POST", "/setup", {"model": "small"})
    serving = world.reconciler.serving
    assert serving is not None
    assert serving.options == {"model": "small"}
    assert serving.options_text == {"version": "7"}
    assert serving.inherited == ("version",)


@on_a_loop
async def test_nothing_named_loads_the_code_as_it_is_now_under_a_new_version(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    await world.serve()
    same = decoded(await world.ask("POST", "/setup", b""))
    assert (same["generation"], same["version"]) == (2, 1)
    world.model.write_text("version = 2\n")
    edited = decoded(await world.ask("POST", "/setup", {}))
    assert (edited["generation"], edited["version"]) == (3, 2)
    world.model.write_text("version = 1\n")
    back = decoded(await world.ask("POST", "/setup", {}))
    assert (back["generation"], back["version"]) == (4, 1)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"model": "huge"}, "one of 'big', 'small'"),
        ({"options": {"model": 1}}, "one of 'big', 'small'"),
        ({"colour": "red"}, "model, version"),
        ({"strategy": "bluegreen"}, "blue_green, rolling, recreate"),
        ({"strategy": {"name": "rolling", "max_unavailable": 0}}, "at least one"),
        ({"strategy": {"name": "rolling", "surge": 1}}, "max_surge"),
        ({"options": {}, "model": "small"}, "inside `options`"),
        ({"options": []}, "envelope"),
        ({"artifact": 1}, "envelope"),
        ({"artifact": "gone.py"}, "nothing at"),
        ({"artifact": "model.txt"}, "a .py file, a folder"),
        ({"artifact": "a\0b"}, "no path"),
        ({"model_path": "gone"}, "nothing at"),
        ([], "an object of options"),
        (b"{", "JSON"),
        (b'{"model": NaN}', "JSON"),
        (b'{"model": "\xff"}', "UTF-8"),
        (b"[" * 100_000, "nested"),
    ],
)
@on_a_loop
async def test_a_body_that_does_not_fit_is_400_before_anything_starts(
    tmp_path: Path, body: Any, says: str
) -> None:
    world = World(tmp_path)
    (world.folder / "model.txt").write_text("")
    await world.serve()
    answer = await world.ask("POST", "/setup", body)
    assert answer.status == 400
    assert says in decoded(answer)["error"]
    assert len(world.reconciler.rollouts()) == 1


@on_a_loop
async def test_a_body_or_query_that_is_no_such_thing_is_refused(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.serve()
    assert (await world.ask("POST", "/setup", b" " * (MAX_BODY + 1))).status == 413
    assert (await world.ask("POST", "/setup", {}, query="wait=maybe")).status == 400
    assert len(world.reconciler.rollouts()) == 1


@on_a_loop
async def test_an_option_of_edited_code_is_left_to_the_code(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.serve()
    world.model.write_text("version = 2\n")
    assert (await world.ask("POST", "/setup", {"colour": "red"})).status == 200


@pytest.mark.parametrize("path", ["../secret", "/etc", "link", "../code-evil/model.py"])
@on_a_loop
async def test_an_artifact_outside_its_root_is_403(tmp_path: Path, path: str) -> None:
    world = World(tmp_path)
    (tmp_path / "secret").mkdir()
    (tmp_path / "code-evil").mkdir()
    (tmp_path / "code-evil" / "model.py").write_text("")
    (world.folder / "link").symlink_to(tmp_path / "secret")
    await world.serve()
    for field in ("artifact", "model_path"):
        answer = await world.ask("POST", "/setup", {field: path})
        assert answer.status == 403
        assert str(tmp_path) not in decoded(answer)["error"]
    assert len(world.reconciler.rollouts()) == 1


@on_a_loop
async def test_an_artifact_below_its_root_is_served_and_stays_the_target(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.serve()
    (world.folder / "v2").mkdir()
    (world.folder / "v2" / "model.py").write_text("version = 2\n")
    answer = await world.ask("POST", "/setup", {"artifact": "v2", "strategy": "rolling"})
    assert (answer.status, decoded(answer)["version"]) == (200, 2)
    again = decoded(await world.ask("POST", "/setup", {}))
    assert again["version"] == 2
    assert world.reconciler.rollout("2").strategy.name.value == "rolling"


@on_a_loop
async def test_an_update_that_fails_is_422_with_its_rollout_and_the_reason(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.serve()
    world.holds = True
    asking = asyncio.create_task(world.ask("POST", "/setup", {"model": "small"}))
    await world.until(lambda: len(world.engine.workers()) == 4)
    world.engine.fail(world.engine.workers()[-1], "setup raised RuntimeError: no weights")
    answer = await asking
    assert answer.status == 422
    record = decoded(answer)
    assert record["success"] is False
    assert (record["error"], record["rollout"]) == ("setup raised RuntimeError: no weights", "2")
    assert list(world.observe().routed) == [1]


@on_a_loop
async def test_code_that_cannot_be_staged_is_422_and_the_old_serves_on(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.serve()
    world.model.unlink()
    answer = await world.ask("POST", "/setup", {})
    assert (answer.status, decoded(answer)["success"]) == (422, False)
    assert decoded(await world.ask("GET", "/healthcheck")) == {"status": "RUNNING"}


@on_a_loop
async def test_of_two_updates_at_once_the_later_wins_and_the_other_is_409(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.serve()
    world.holds = True
    first = asyncio.create_task(world.ask("POST", "/setup", {"model": "small"}))
    await world.until(lambda: len(world.reconciler.rollouts()) == 2)
    second = asyncio.create_task(world.ask("POST", "/setup", {"version": "9"}))
    loser = await first
    assert (loser.status, decoded(loser)["success"]) == (409, False)
    world.holds = False
    world.engine.settle()
    assert (await second).status == 200
    serving = world.reconciler.serving
    assert serving is not None
    assert serving.options == {"version": "9"}, "the superseded one's options are not taken"


@on_a_loop
async def test_without_waiting_the_rollout_is_named_and_can_be_followed(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.serve()
    answer = await world.ask("POST", "/setup", {"model": "small"}, query="wait=false")
    assert answer.status == 202
    rollout = decoded(answer)["rollout"]
    await world.until(lambda: world.reconciler.rollout(rollout).finished)
    record = decoded(await world.ask("GET", f"/rollouts/{rollout}"))
    assert (record["id"], record["state"], record["percent"]) == (rollout, "succeeded", 100)
    listed = decoded(await world.ask("GET", "/rollouts"))["rollouts"]
    assert [one["id"] for one in listed] == ["2", "1"]
    assert (await world.ask("GET", "/rollouts/99")).status == 404


@on_a_loop
async def test_rollback_goes_to_the_generation_before_or_says_there_is_none(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.serve()
    assert (await world.ask("POST", "/rollback")).status == 409
    await world.ask("POST", "/setup", {"model": "small"})
    answer = await world.ask("POST", "/rollback")
    assert (answer.status, decoded(answer)["generation"]) == (200, 1)


@on_a_loop
async def test_rollback_of_a_loading_update_calls_it_off_and_succeeds(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.serve()
    world.holds = True
    update = asyncio.create_task(world.ask("POST", "/setup", {"model": "small"}))
    await world.until(lambda: len(world.engine.workers()) == 4)
    rollback = await world.ask("POST", "/rollback")
    assert (rollback.status, decoded(rollback)["generation"]) == (200, 1)
    assert (await update).status == 409
    assert world.reconciler.rollout("2").state is RolloutState.ROLLED_BACK


@on_a_loop
async def test_snapshots_that_no_generation_needs_are_removed(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.serve()
    for number in range(2, 8):
        world.model.write_text(f"version = {number}\n")
        assert (await world.ask("POST", "/setup", {})).status == 200
    serving, previous = world.reconciler.serving, world.reconciler.previous
    assert serving is not None
    assert previous is not None
    needed = {Path(serving.snapshot).name, Path(previous.snapshot).name}
    await world.until(lambda: world.snapshots() == needed)


@on_a_loop
async def test_an_edit_is_noticed_once_and_taken_back_while_it_loads_too(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.serve()
    assert await world.updates.begin_edited() is None
    world.model.write_text("version = 2\n")
    world.holds = True
    assert await world.updates.begin_edited() is not None
    assert await world.updates.begin_edited() is None, "what is on its way is not an edit again"
    world.model.write_text("version = 1\n")
    back = await world.updates.begin_edited()
    assert back is not None, "what serves is an edit while another is on its way"


def _stats(last_call_s: float) -> Stats:
    command = CommandStats(
        service="fib", command="fib", version=1, generation=1,
        buckets=[0] * (len(BUCKETS) + 1), last_call_s=last_call_s,
    )  # fmt: skip
    return Stats(
        seq=1, gateway_id=0, connections=0, connections_total=0, in_flight=0, queued={},
        rejected={}, retried=0, commands=[command],
    )  # fmt: skip
