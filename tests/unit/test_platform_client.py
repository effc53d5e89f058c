"""The Python client of a platform, against the real control plane on a real socket."""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from modelcloud import errors
from modelcloud.cli.pack import packed
from modelcloud.client import Unreachable
from modelcloud.control.web.problems import problem
from modelcloud.platform import Platform, connection
from modelcloud.platform.connection import error_of
from support.control import PASSWORD
from support.platform_server import PlatformServer, model_folder, platform_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformServer]:
    with platform_server(tmp_path_factory.mktemp("platform")) as server:
        yield server


@pytest.fixture
def admin(server: PlatformServer) -> Iterator[Platform]:
    with server.sign_in() as platform:
        yield platform


def register(platform: Platform, folder: Path, service: str, **fields: Any) -> dict[str, Any]:
    with packed(model_folder(folder)) as (archive, _):
        upload = platform.upload(archive)["upload"]
    return platform.register(service, upload=upload, group="admin", **fields)


# ---- every word


class Noting(Platform):
    """Notes which of its methods are called."""

    called: set[str]

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_") and name != "called":
            self.called.add(name)
        return super().__getattribute__(name)


def test_every_word_of_the_client_is_one_of_the_application(
    server: PlatformServer, tmp_path: Path
) -> None:
    Noting.called = set()
    with Noting(server.url) as ann:
        assert ann.sign_in("admin", PASSWORD)["user"] == "admin"
        people(ann)
        things(ann)
        versions(ann, tmp_path)
        deployments(ann)
        monitors(ann)
        workspaces(ann)
        deletions(ann)
        ann.sign_out()
        assert ann.token is None
        assert ann.url == server.url
        with pytest.raises(errors.Unauthorized):
            ann.whoami()
    words = {name for name, _ in inspect.getmembers(Platform) if not name.startswith("_")}
    assert words - {"close"} <= Noting.called, "no call of these"


def people(ann: Platform) -> None:
    made = ann.create_user("bob", PASSWORD, must_change_password=True)
    assert (made["name"], made["must_change_password"]) == ("bob", True)
    assert ann.edit_user("bob", disabled=True, revision=made["revision"])["disabled"]
    assert ann.user("bob")["revision"] == made["revision"] + 1
    assert [user["name"] for user in ann.users()] == ["admin", "bob"]
    token = ann.create_token("ci", "read", "admin", 60.0)
    assert token["token"]
    assert token["id"] in [one["id"] for one in ann.tokens()]
    assert ann.tokens("bob") == []
    ann.revoke_token(token["id"])
    assert ann.create_group("team", "of five")["description"] == "of five"
    assert ann.edit_group("team", public_predictions=False)["public_predictions"] is False
    assert ann.share("team", "bob", "read") == {"user": "bob", "level": "read"}
    assert {one["user"] for one in ann.members("team")} == {"admin", "bob"}
    ann.unshare("team", "bob")
    assert ann.set_quota("team", cpu=2.0)["quota"]["cpu"] == 2.0
    assert ann.group("team")["quota"]["replicas"] is None
    assert [one["name"] for one in ann.groups()] == ["admin", "bob", "team"]
    assert ann.whoami()["groups"][0] == {"group": "admin", "level": "manage"}
    ann.change_password(PASSWORD, "another horse battery")
    ann.change_password("another horse battery", PASSWORD)


def things(ann: Platform) -> None:
    assert ann.create_instance_type("tiny", memory=1 << 24)["memory"] == 1 << 24
    assert ann.edit_instance_type("tiny", cpu=0.5)["cpu"] == 0.5
    assert ann.instance_type("tiny") in ann.instance_types()
    ann.delete_instance_type("tiny")
    assert ann.node()["capacity"]["cpu"] == 8.0
    assert [one["name"] for one in ann.audit(1, kind="instance_type")] == ["tiny"]


def versions(ann: Platform, folder: Path) -> None:
    assert ann.create_service("empty", "team", idempotency_key="k")["versions"] == 0
    assert ann.edit_service("empty", description="d")["description"] == "d"
    with pytest.raises(errors.PreconditionFailed):
        ann.delete_service("empty", revision=1)
    ann.delete_service("empty", revision=2)
    with packed(model_folder(folder / "model")) as (archive, _):
        upload = ann.upload(str(archive))
        assert ann.uploads() == [upload]
        ann.delete_upload(upload["upload"])
    assert ann.uploads() == []
    curves = {"loss": [[1, 0.5], [2, 0.25]]}
    for number in (1, 2):
        made = register(
            ann, folder / "model", "fib", metrics={"auc": 0.9}, curves=curves, version=number
        )
        assert made["version"] == number
    assert ann.version("fib", 1)["metrics"] == {"auc": 0.9}
    assert ann.curves("fib", 1) == {"curves": curves}
    assert ann.edit_version("fib", 2, description="better")["description"] == "better"
    assert [one["version"] for one in ann.versions("fib")] == [2, 1]
    assert ann.service("fib") in ann.services(group="admin", q="fi", state="offline")


def deployments(ann: Platform) -> None:
    answer = ann.deploy("fib", 1, replicas=2, idempotency_key="first")
    assert ann.wait(answer["rollout"]["id"])["state"] == "succeeded"
    answer = ann.deploy("fib", 2, replaces=1)
    assert ann.wait(answer["rollout"]["id"])["to"]["version"] == 2
    record = ann.deployment("fib", 2)
    assert (record["replicas"], record["status"], record["answers"]) == (2, "Serving", [1, 2])
    changes: list[Callable[[], dict[str, Any]]] = [
        lambda: ann.redeploy("fib", 2),
        lambda: ann.update("fib", 2, {"depth": 3}, "recreate"),
        lambda: ann.rollback("fib", 2),
    ]
    for begin in changes:
        rollout = begin()["rollout"]
        assert ann.wait(rollout["id"])["state"] == "succeeded"
        assert ann.rollout(rollout["id"])["log"][-1] == "succeeded"
    assert len(ann.rollouts(3, service="fib")) == 3
    assert ann.update("fib", 2, {})["rollout"] is None
    assert ann.scale("fib", 2, 3)["deployment"]["replicas"] == 3
    assert ann.set_traffic("fib", labels={"stable": 2})["labels"] == {"stable": 2}
    assert ann.traffic("fib")["weights"] == {"2": 1.0}
    assert ann.stop("fib", 2)["deployment"]["wanted"] == "offline"
    assert ann.wait(ann.start("fib", 2)["rollout"]["id"])["state"] == "succeeded"
    assert [one["version"] for one in ann.deployments("fib")] == [2]
    page = ann.logs("fib", lines=2)
    assert [line["source"] for line in page["lines"]] == ["rollout 6", "rollout 6"]
    lines = ann.follow_logs("fib", lines=2)
    assert [next(lines), next(lines)] == page["lines"]
    lines.close()  # type: ignore[attr-defined]
    assert ann.metrics("fib", 2)["span_s"] == 10
    assert ann.metrics("fib", span=300)["span_s"] == 300


def monitors(ann: Platform) -> None:
    source: dict[str, Any] = {
        "type": "general", "general_host": "http://127.0.0.1:9", "remote_path": "/",
        "remote_model_name": "m.tar", "remote_donefile_name": "done",
        "deploy": {"instance_type": "small"},
    }  # fmt: skip
    made = ann.create_monitor("fib", "daily", paused=True, idempotency_key="m", **source)
    assert ann.monitor("fib", "daily")["place"] == made["place"] == "http://127.0.0.1:9/"
    assert [one["name"] for one in ann.monitors("fib")] == ["daily"]
    assert [(one["service"], one["name"]) for one in ann.monitors()] == [("fib", "daily")]
    for tested in (ann.test_monitor("fib", "daily"), ann.test_monitor("fib", **source)):
        assert tested["ok"] is False
        assert "not public" in tested["error"]
    edited = ann.edit_monitor("fib", "daily", revision=made["revision"], keep=5, interval=3600.0)
    assert edited["settings"]["keep"] == 5
    assert ann.resume_monitor("fib", "daily")["paused"] is False
    assert ann.run_monitor("fib", "daily")["name"] == "daily"
    end = time.monotonic() + 20.0
    while not (events := ann.monitor_events("fib", "daily")):
        assert time.monotonic() < end
        time.sleep(0.01)
    assert events[0]["outcome"] == "failed"
    assert ann.pause_monitor("fib", "daily")["activity"] == "paused"
    ann.delete_monitor("fib", "daily")
    assert ann.monitors("fib") == []


def workspaces(ann: Platform) -> None:
    assert ann.workspaces() == []
    assert ann.workspace_folders("admin") == []
    with pytest.raises(errors.Conflict, match="--workspaces N"):
        ann.start_workspace("admin")
    with pytest.raises(errors.NotFound, match="start it first"):
        ann.open_workspace("admin")
    with pytest.raises(errors.NotFound, match="no workspace of 'bob'"):
        ann.stop_workspace("admin", "bob")


def deletions(ann: Platform) -> None:
    assert ann.undeploy("fib", 2)["deployment"]["wanted"] == "deleted"
    assert all(one["wanted"] == "deleted" for one in ann.undeploy("fib")["items"])
    end = time.monotonic() + 20.0
    while ann.deployments("fib"):
        assert time.monotonic() < end
    ann.delete_version("fib", 1)
    ann.delete_service("fib")
    ann.delete_group("team")
    ann.delete_user("bob")


# ---- lists, uploads, edits


def test_a_list_is_whole_however_many_pages_it_takes(
    admin: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = admin.instance_types()
    assert len(there) == 4
    monkeypatch.setattr(connection, "PAGE", 3)
    assert admin.instance_types() == there
    for number in range(7):
        admin.create_group(f"listed-{number}")
    entries = admin.audit(limit=5)
    assert len(entries) == 5
    assert entries == admin.audit(limit=7)[:5]


def test_an_upload_tells_how_far_it_is(
    admin: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelcloud.platform.services.CHUNK", 1000)
    archive = tmp_path / "m.tar"
    archive.write_bytes(bytes(2500))
    told: list[tuple[int, int]] = []
    record = admin.upload(archive, lambda sent, size: told.append((sent, size)))
    assert told == [(1000, 2500), (2000, 2500), (2500, 2500)]
    assert record["bytes"] == 2500
    admin.delete_upload(record["upload"])


def test_an_archive_over_the_limit_is_refused_with_the_platforms_words(
    admin: Platform, tmp_path: Path
) -> None:
    archive = tmp_path / "m.tar"
    with archive.open("wb") as file:
        file.truncate(64 << 20)
    with pytest.raises(errors.TooLarge, match="accepted here up to 4194304 bytes"):
        admin.upload(archive)


def test_an_edit_of_what_was_changed_since_is_refused(admin: Platform) -> None:
    made = admin.create_group("edited")
    admin.edit_group("edited", description="a", revision=made["revision"])
    with pytest.raises(errors.PreconditionFailed, match="was changed since") as caught:
        admin.edit_group("edited", description="b", revision=made["revision"])
    assert caught.value.fields["revision"] == made["revision"] + 1
    admin.edit_group("edited", description="c")


def test_a_repeated_deploy_with_its_key_deploys_nothing_more(
    admin: Platform, tmp_path: Path
) -> None:
    register(admin, tmp_path, "again")
    first = admin.deploy("again", 1, idempotency_key="k1")
    assert admin.deploy("again", 1, idempotency_key="k1") == first
    with pytest.raises(errors.Conflict, match="online already"):
        admin.deploy("again", 1, idempotency_key="k2")
    with pytest.raises(errors.KeyReused):
        admin.deploy("again", 1, replicas=2, idempotency_key="k1")


# ---- waiting and following


def test_waiting_tells_of_each_change_and_gives_up_in_time(
    server: PlatformServer, admin: Platform, tmp_path: Path
) -> None:
    register(admin, tmp_path, "slow")
    server.node.holding = True
    told: list[str] = []
    try:
        rollout = admin.deploy("slow", 1)["rollout"]["id"]
        began = time.monotonic()
        with pytest.raises(errors.DeadlineExceeded, match="it goes on"):
            admin.wait(rollout, timeout_s=0.5)
        assert time.monotonic() - began >= 0.5

        def go_on(record: dict[str, Any]) -> None:
            told.append(record["state"])
            server.node.holding = False

        assert admin.wait(rollout, go_on)["state"] == "succeeded"
    finally:
        server.node.holding = False
    assert told[0] == "running"
    assert told[-1] == "succeeded"
    assert admin.wait(rollout)["state"] == "succeeded"  # long over


def test_lines_are_followed_as_they_are_written(
    server: PlatformServer, admin: Platform, tmp_path: Path
) -> None:
    register(admin, tmp_path, "talks")
    log = server.log_path("talks", 1)
    stamp = "2025-11-20T07:00:00.000Z"
    with log.open("a") as file:
        file.write(f"{stamp} w1 g1 | one\n{stamp} w2 g1 | two\n")
    assert [line["text"] for line in admin.logs("talks", 1, replica=2)["lines"]] == ["two"]
    lines = admin.follow_logs("talks", 1)
    assert [next(lines)["text"], next(lines)["text"]] == ["one", "two"]
    with log.open("a") as file:
        file.write(f"{stamp} w1 g1 | \u2028 ends no line, nor does \u0085\n")
    assert next(lines) == {
        "at": stamp, "source": "w1 g1", "text": "\u2028 ends no line, nor does \u0085"
    }  # fmt: skip
    lines.close()  # type: ignore[attr-defined]


class Streams(httpx.BaseTransport):
    """Answers each request with the next of these streams; one that ends with None breaks."""

    def __init__(self, *streams: list[bytes | None] | int) -> None:
        self._streams = list(streams)
        self.asked: list[httpx.Request] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        stream = self._streams.pop(0) if len(self._streams) > 1 else self._streams[0]
        if isinstance(stream, int):
            return httpx.Response(stream)

        def chunks() -> Iterator[bytes]:
            for chunk in stream:
                if chunk is None:
                    raise httpx.ReadError("reset")
                yield chunk

        return httpx.Response(200, content=chunks())


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PAUSE_S", 0.001)


@pytest.mark.usefixtures("hasty")
def test_a_stream_that_breaks_goes_on_where_it_was() -> None:
    streams = Streams(
        [b"event: line\r\nid: c1\r\nda", b'ta: {"text":\r\ndata: "a"}\r\n\r\n', None],
        503,
        [b": ping\n\n", b'id: c2\ndata: {"text": "b"}\n\n'],
    )
    with Platform("http://p.test", transport=streams) as platform:
        lines = platform.follow_logs("fib", 1, after="c0")
        assert [next(lines), next(lines)] == [{"text": "a"}, {"text": "b"}]
    assert [request.headers.get("last-event-id") for request in streams.asked] == [None, "c1", "c1"]


@pytest.mark.usefixtures("hasty")
def test_a_stream_that_does_not_come_back_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PATIENCE_S", 0.05)
    with Platform("http://p.test", transport=Streams([None])) as platform:
        with pytest.raises(Unreachable, match="reset"):
            platform.wait(1)
        with pytest.raises(errors.DeadlineExceeded):
            platform.wait(1, timeout_s=0.01)


@pytest.mark.usefixtures("hasty")
def test_a_stream_that_is_refused_is_not_asked_for_again() -> None:
    streams = Streams(404)
    with Platform("http://p.test", transport=streams) as platform, pytest.raises(errors.NotFound):
        platform.wait(1)
    assert len(streams.asked) == 1


# ---- errors


def tree(kind: type[errors.ModelcloudError]) -> Iterator[type[errors.ModelcloudError]]:
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from tree(child)


@pytest.mark.parametrize("kind", [*tree(errors.ModelcloudError)], ids=lambda kind: kind.__name__)
def test_a_problem_is_raised_as_the_error_that_it_was(kind: type[errors.ModelcloudError]) -> None:
    error = kind.__new__(kind)
    errors.ModelcloudError.__init__(error, "in words", retry_after_s=3)
    answer = problem(error)
    raised = error_of(answer.status_code, bytes(answer.body))
    assert type(raised) is kind
    assert (raised.message, raised.status) == ("in words", kind.status)
    assert raised.fields == {"retry_after_s": 3}


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"detail": 3}', b"\xff", b"[" * 99999])
def test_a_refusal_without_words_still_names_its_status(body: bytes) -> None:
    raised = error_of(412, body)
    assert raised.message == "the platform answered 412"
    assert type(raised) is errors.PreconditionFailed


def test_refusals_have_the_platforms_words(
    server: PlatformServer, admin: Platform, tmp_path: Path
) -> None:
    register(admin, tmp_path, "refused")
    with Platform(server.url) as nobody:
        with pytest.raises(errors.Unauthorized, match="needs a token"):
            nobody.services()
        with pytest.raises(errors.Unauthorized, match="user name or the password is wrong"):
            nobody.sign_in("admin", "wrong horse battery")
    with pytest.raises(errors.NotFound, match="no service 'nowhere'"):
        admin.service("nowhere")
    with pytest.raises(errors.UsageError, match="colour: not known here"):
        admin.edit_group("admin", colour="blue")
    with pytest.raises(
        errors.InvalidInput, match="instance_type: got 'huge'; accepted: "
    ) as caught:
        admin.deploy("refused", 1, instance_type="huge")
    assert caught.value.fields["field"] == "instance_type"


def test_names_stay_one_segment_of_the_address(admin: Platform) -> None:
    for name in ("a/b", "..", "a?b", "a#b", "ü ", "%2e"):
        with pytest.raises(errors.NotFound):
            admin.deployments(name)


def test_nothing_listening_is_said_in_words() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused", request=request)

    platform = Platform("http://p.test/", transport=httpx.MockTransport(refuse))
    with platform, pytest.raises(Unreachable, match=r"no answer from http://p\.test: connection"):
        platform.whoami()


@pytest.mark.parametrize("url", ["ftp://p.test", "p.test:80x", "localhost:80", "http://[::1"])
def test_what_is_no_http_address_is_refused_as_usage(url: str) -> None:
    with pytest.raises(errors.UsageError, match="is no address"):
        Platform(url).whoami()


@pytest.mark.parametrize("answer", ["<html>", "[]", "{}"])
def test_a_server_of_another_kind_is_said_in_words(answer: str) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, text=answer))
    with Platform("http://p.test", transport=transport) as platform:
        for call in (platform.services, platform.audit):
            with pytest.raises(errors.ModelcloudError, match="no modelcloud platform"):
                call()


@pytest.mark.parametrize("token", ["s3cret\n", "s3cret x", "s3crét"])
def test_what_cannot_be_a_token_is_refused_and_not_repeated(token: str) -> None:
    with pytest.raises(errors.UsageError, match="no token") as caught:
        Platform("http://p.test", token)
    assert "s3cr" not in caught.value.message


def test_what_is_no_json_is_refused_as_usage() -> None:
    with Platform("http://p.test") as platform:
        for value in (float("nan"), Path("/x"), {1, 2}):
            with pytest.raises(errors.UsageError, match="has to be JSON"):
                platform.edit_group("g", description=value)


def test_the_token_travels_in_the_authorization_header_only() -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, text=json.dumps({}))

    with Platform("http://p.test", "s3cret", transport=httpx.MockTransport(answer)) as platform:
        platform.whoami()
    (request,) = asked
    assert request.headers["authorization"] == "Bearer s3cret"
    assert "s3cret" not in str(request.url)
    assert "cookie" not in request.headers
