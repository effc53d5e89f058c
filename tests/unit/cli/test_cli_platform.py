"""Every command for a platform, against the real control plane: its line, its table, its JSON."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from modelcloud.cli import follow, session
from modelcloud.cli.main import app
from modelcloud.packages import layout
from modelcloud.platform import Platform, connection
from support.commands import Run, Said, Terminal
from support.control import PASSWORD
from support.platform_server import PlatformServer, model_folder, platform_server

#: Of a served model, and of a platform too.
BOTH = {"update", "rollback"}


def commands() -> dict[str, Any]:
    """Every command for a platform, by its words."""
    found: dict[str, Any] = {}
    root: Any = typer.main.get_command(app)
    for name, command in root.commands.items():
        if name in BOTH or command.rich_help_panel == "Platform":
            inner = getattr(command, "commands", None) or {"": command}
            found.update({f"{name} {word}".rstrip(): one for word, one in inner.items()})
    return found


class Line:
    """A command line that is signed in, and notes what was asked of it."""

    def __init__(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        self._run, self._monkeypatch = run, monkeypatch
        self.asked: set[tuple[str, bool]] = set()

    def __call__(self, *arguments: str | Path, stdin: str = "") -> str:
        """What a command says, once it has succeeded."""
        said = self.run(*arguments, stdin=stdin)
        assert said.status == 0, said.err
        return said.out

    def json(self, *arguments: str | Path, stdin: str = "") -> Any:
        """The same, as JSON."""
        return json.loads(self(*arguments, "--json", stdin=stdin))

    def run(
        self, *arguments: str | Path, stdin: str = "", at: type[io.StringIO] = io.StringIO
    ) -> Said:
        words = [str(argument) for argument in arguments]
        name = next(n for n in (" ".join(words[:2]), words[0]) if n in commands())
        self.asked.add((name, "--json" in words))
        self._monkeypatch.setattr("sys.stdin", at(stdin))
        return self._run(*words)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformServer]:
    folder = tmp_path_factory.mktemp("platform")
    (folder / "root").mkdir()
    with platform_server(folder, folder / "root") as server:
        yield server


@pytest.fixture
def line(run: Run, server: PlatformServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Line:
    monkeypatch.setattr(follow, "POLL_S", 0.001)
    monkeypatch.setattr(connection, "PAUSE_S", 0.01)
    monkeypatch.setenv(session.CONFIG_VARIABLE, str(tmp_path / "credentials.json"))
    monkeypatch.delenv(session.TOKEN_VARIABLE, raising=False)
    with server.sign_in() as admin:
        session.remember(server.url, admin.token or "")
    return Line(run, monkeypatch)


def rows(text: str) -> list[list[str]]:
    """The words of each line of a table, its head left out."""
    return [row.split() for row in text.splitlines()[1:]]


def test_every_command_does_what_it_says(
    line: Line, server: PlatformServer, tmp_path: Path
) -> None:
    account(line, server)
    people(line)
    instance(line)
    services(line, server, tmp_path)
    deployments(line)
    traffic(line)
    packages(line, tmp_path)
    monitors(line, tmp_path)
    workspaces(line)
    observed(line, server)
    deletions(line)
    assert line("logout") == "signed out\n"
    forms = {
        (name, as_json)
        for name, command in commands().items()
        for as_json in (False, True)
        if not as_json or any("--json" in parameter.opts for parameter in command.params)
    }
    assert forms <= line.asked, "not asked for"


def account(line: Line, server: PlatformServer) -> None:
    assert "signed in" in line("login", server.url, "-u", "admin", stdin=f"{PASSWORD}\n")
    assert line.json("login", server.url, "-u", "admin", stdin=f"{PASSWORD}\n")["user"] == "admin"
    assert ["admin", "manage"] in rows(line("whoami"))
    assert line.json("whoami")["is_admin"] is True
    new = "another horse battery"
    assert line("passwd", stdin=f"{PASSWORD}\n{new}\n") == "password changed\n"
    line("passwd", stdin=f"{new}\n{PASSWORD}\n")
    assert len(line("tokens", "create", "ci")) > 40
    made = line.json("tokens", "create", "cd", "--level", "read", "--group", "admin",
                     "--expires-in", "60")  # fmt: skip
    assert (made["level"], made["group"]) == ("read", "admin")
    assert [made["id"], "cd"] in [[one["id"], one["name"]] for one in line.json("tokens", "list")]
    assert ["cd", "token", "admin", "read"] in [row[1:5] for row in rows(line("tokens", "list"))]
    assert line("tokens", "revoke", str(made["id"])) == f"token {made['id']} revoked\n"


def people(line: Line) -> None:
    secret = f"{PASSWORD}\n"
    assert line("users", "create", "bob", stdin=secret) == "user bob made\n"
    made = line.json("users", "create", "eve", "--admin", "--must-change", stdin=secret)
    assert (made["is_admin"], made["must_change_password"]) == (True, True)
    assert line("users", "edit", "eve", "--no-admin", "--disable") == "user eve changed\n"
    assert (
        line.json("users", "edit", "eve", "--enable", "--password", stdin=secret)["name"] == "eve"
    )
    assert ["bob", "no", "no"] in [row[:3] for row in rows(line("users", "list"))]
    assert line.json("users", "list")[0]["name"] == "admin"
    assert line("groups", "create", "team") == "group team made\n"
    assert line.json("groups", "create", "spare", "--description", "d")["description"] == "d"
    assert line("groups", "edit", "team", "--token-only") == "group team changed\n"
    assert line.json("groups", "edit", "team", "--public")["public_predictions"] is True
    assert line("groups", "share", "team", "bob", "read") == "bob may read team\n"
    assert line.json("groups", "share", "team", "bob", "modify")["level"] == "modify"
    assert line("groups", "quota", "team", "--memory", "2G") == "quota of team set\n"
    assert line.json("groups", "quota", "team", "--cpu", "7")["quota"]["cpu"] == 7.0
    shown = line("groups", "show", "team")
    assert "cpu=7, memory=-, gpu=-, replicas=-" in shown
    assert ["bob", "modify"] in rows(shown)
    assert {one["user"] for one in line.json("groups", "show", "team")["members"]} == {
        "admin",
        "bob",
    }
    assert line("groups", "unshare", "team", "bob") == "team is no longer shared with bob\n"
    assert ["team", "manage", "yes", "-"] in rows(line("groups", "list"))
    assert "team" in [one["name"] for one in line.json("groups", "list")]


def instance(line: Line) -> None:
    assert line("instance-types", "create", "tiny", "--memory", "512M") == (
        "instance type tiny made\n"
    )
    assert line.json("instance-types", "create", "mini", "--cpu", "0.5")["cpu"] == 0.5
    assert line("instance-types", "edit", "tiny", "--cpu", "1") == "instance type tiny changed\n"
    assert line.json("instance-types", "edit", "tiny", "--gpu", "0.5")["gpu"] == 0.5
    assert ["tiny", "1", "512M", "0.5", "-"] in rows(line("instance-types", "list"))
    assert "mini" in [one["name"] for one in line.json("instance-types", "list")]
    assert line("instance-types", "delete", "mini", "--yes") == "instance type mini deleted\n"
    shown = line("node")
    assert "capacity  cpu=8, memory=16G, gpu=2" in shown
    assert "cpu=7, memory=-, gpu=-, replicas=-" in shown
    assert line.json("node")["capacity"]["memory"] == 16 << 30
    assert "instance_types.create" in line("audit", "--kind", "instance_type")
    (entry,) = line.json("audit", "--action", "instance_types.delete", "--limit", "1")
    assert (entry["actor"], entry["name"]) == ("admin", "mini")


def services(line: Line, server: PlatformServer, folder: Path) -> None:
    assert line("create-service", "empty") == "service empty made in group admin\n"
    made = line.json("create-service", "bare", "--group", "team", "--description", "d",
                     "--route", "b", "--method", "POST")  # fmt: skip
    assert (made["route"], made["method"]) == ("b", "POST")
    assert (made["group"], made["description"]) == ("team", "d")
    for name in ("empty", "bare"):
        line("delete", name, "--yes")
    model = model_folder(folder / "model")
    (folder / "requirements.txt").write_text("# none\n")
    said = line("register", model, "-s", "fib", "-g", "team", "--description", "first")
    assert said == "registered fib version 1 (function: predict)\n"
    record = line.json(
        "register", model / "model.py", "--service", "fib", "--version", "2", "--option", "depth=1",
        "--metric", "auc=0.98", "--disabled", "--requirements", folder / "requirements.txt",
    )  # fmt: skip
    assert (record["version"], record["options"]) == (2, {"depth": 1})
    assert (record["metrics"], record["enabled"], record["main"]) == (
        {"auc": 0.98}, False, "model.py"
    )  # fmt: skip
    on_server = model_folder(server.data.parent / "root" / "m")
    line("register", on_server, "--on-server", "-s", "fib", "--python", "/usr/bin/env")
    assert line("edit-version", "fib", "2", "--enable") == "fib version 2 changed\n"
    assert line.json("edit-version", "fib", "2", "--metric", "f1=0.5")["metrics"] == {"f1": 0.5}
    assert line("edit-service", "fib", "--port", "0") == "fib changed\n"
    moved = ("--route", "a/fib", "--method", "GET", "--route-port", "0")
    made = line.json("edit-service", "fib", *moved)
    assert (made["route"], made["method"], made["route_port"]) == ("a/fib", "GET", 0)
    assert line.json("edit-service", "fib", "--route", "")["route"] is None
    assert line.json("edit-service", "fib", "--description", "d")["description"] == "d"
    assert [row[:4] for row in rows(line("versions", "fib"))] == [
        ["3", "Offline", "function", "yes"],
        ["2", "Offline", "function", "yes"],
        ["1", "Offline", "function", "yes"],
    ]
    assert [one["version"] for one in line.json("versions", "fib")] == [3, 2, 1]


def deployments(line: Line) -> None:
    said = line("deploy", "fib", "1", "-n", "2", "--instance-type", "tiny", "-o", "depth=3")
    assert said.splitlines()[-1] == "fib: version 1, generation 1 serves"
    answer = line.json(
        "deploy", "fib", "2", "--replace", "1", "--strategy", "rolling", "--max-surge", "1",
        "--keep-warm", "60", "--dispatch", "consistent_hash", "--dispatch-key", "header:x-user",
    )  # fmt: skip
    assert answer["rollout"]["state"] == "succeeded"
    now = answer["deployment"]
    assert (now["version"], now["status"], now["instance_type"]) == (2, "Serving", "tiny")
    assert (now["replicas"], now["options"]) == (2, {"depth": 3})
    assert now["dispatch"] == {"policy": "consistent_hash", "key": "header:x-user"}
    assert "serves" in line("deploy", "fib", "3", "--weight", "1", "--label", "new")
    row = next(row for row in rows(line("deployments", "fib")) if row[0] == "2")
    assert row[:7] == ["2", "Serving", "serving", "2", "2", "tiny", "1"]
    assert [one["version"] for one in line.json("deployments", "fib")] == [2, 3]
    assert "rollout 4 accepted" in line("redeploy", "fib", "3", "--no-wait")
    assert line.json("redeploy", "fib", "2")["deployment"]["current"]["version"] == 2
    assert "generation" in line("update", "fib", "2", "-o", "depth=4")
    assert line.json("update", "fib", "2", "-o", "depth=4")["changed"] is False
    assert line("update", "fib", "2") == "nothing to do: all of it is so already\n"
    assert "serves" in line("rollback", "fib", "2")
    assert line.json("rollback", "fib", "2", "--no-wait")["rollout"]["kind"] == "rollback"
    assert line("scale", "fib", "2", "3") == "fib version 2: 3 replicas wanted\n"
    assert line.json("scale", "fib", "2", "1")["deployment"]["replicas"] == 1
    assert line("stop", "fib", "3") == "fib version 3 goes offline\n"
    assert line.json("stop", "fib", "3")["changed"] is False
    assert line("start", "fib", "3").splitlines()[-1].endswith("serves")
    line("stop", "fib", "3")
    assert line.json("start", "fib", "3")["deployment"]["status"] == "Serving"
    shown = rows(line("rollouts", "fib", "--state", "succeeded", "--limit", "2"))
    assert len(shown) == 2
    assert shown[0][1:3] == ["fib", "initial"]
    assert len(line.json("rollouts")) > 8


def traffic(line: Line) -> None:
    said = line("traffic", "fib", "-w", "2=3", "-w", "3=1", "--shadow", "3=0.5", "--sticky",
                "cookie:who")  # fmt: skip
    assert ["weights", "2=3,", "3=1"] in rows(f"\n{said}")
    assert line.json("traffic", "fib")["sticky"] == {"kind": "cookie", "name": "who"}
    assert line.json("traffic", "fib", "--sticky", "none", "--shadow", "3=0")["shadow"] == {}
    assert line("label", "fib", "stable", "2") == "/predict/fib/stable leads to version 2\n"
    labels = line.json("label", "fib", "canary", "3")["labels"]
    assert labels == {"canary": 3, "new": 3, "stable": 2}
    shown = line("service", "fib")
    assert ["address", "/predict/fib"] in rows(shown)
    assert "canary, new" in shown
    assert len(line.json("service", "fib")["versions"]) == 3
    assert "2 Serving, 3 Serving" in line("services", "--state", "serving", "--group", "team")
    assert [one["name"] for one in line.json("services", "--search", "fi")] == ["fib"]


def packages(line: Line, folder: Path) -> None:
    layout.new(folder / "packages", "Faces")
    conf = folder / "packages" / "conf.ini"
    assert rows("\n" + line("apply", conf, "--dry-run")) == [
        ["+", "Faces", "1", "of", "algo_backend", "at", "/faces"]
    ]
    (made,) = line.json("apply", conf, "--group", "admin")
    assert (made["name"], made["kind"], made["version"], made["error"]) == ("Faces", "add", 1, "")
    assert rows("\n" + line("apply", conf)) == [["=", "Faces", "as", "it", "is"]]
    refused = line.run("apply", conf, "--watch", "--json")
    assert (refused.status, "--watch goes with neither" in refused.err) == (2, True)
    text = conf.read_text()
    conf.write_text(text.replace("replicas = 1", "replicas = none"))
    refused = line.run("apply", conf)
    assert refused.status == 2
    assert refused.err.splitlines() == [
        f"{conf}:10: replicas is 'none'; accepted: a whole number from 1 to 64",
        f"modelcloud: {conf}: 1 problem; nothing was changed",
    ]
    assert line.run("apply", folder / "none.ini").status == 2
    conf.write_text(text[: text.index("[algopkg.Faces]")])
    assert "drained and gone" in line("apply", conf)
    assert line("apply", conf) == "nothing is asked for, and nothing of this file runs\n"


def monitors(line: Line, folder: Path) -> None:
    source = [
        "--type", "ftp", "--remote_path", "/daily", "--ftp_host", "127.0.0.1", "--ftp_port", "9",
        "--ftp_username", "ann", "--remote_model_name", "m.tar", "--remote_donefile_name", "done",
    ]  # fmt: skip
    (folder / "password").write_text("s3cret-word\n")
    (folder / "golden.jsonl").write_text('{"inputs": {"n": 1}, "expected": 2}\n')
    made = line(
        "monitors", "create", "fib", "daily", *source, "--paused", "--ftp_password_file",
        folder / "password", "--golden", folder / "golden.jsonl", "--keep", "3",
        "--set", "description=by itself",
    )  # fmt: skip
    assert made == "monitor daily of fib watches ftp://127.0.0.1:9/daily\n"
    shown = line.json("monitors", "show", "fib", "daily")
    assert shown["secrets"] == ["ftp_password"]
    assert shown["settings"]["golden"] == [{"inputs": {"n": 1}, "expected": 2}]
    assert (shown["settings"]["keep"], shown["settings"]["description"]) == (3, "by itself")
    assert "s3cret-word" not in line("monitors", "show", "fib", "daily")
    assert line.json("monitors", "create", "fib", "nightly", *source, "--paused")["paused"] is True
    assert [row[:3] for row in rows(line("monitors", "list", "fib"))] == [
        ["daily", "ftp", "ftp://127.0.0.1:9/daily"], ["nightly", "ftp", "ftp://127.0.0.1:9/daily"],
    ]  # fmt: skip
    assert len(line.json("monitors", "list", "fib")) == 2
    assert [row[:2] for row in rows(line("monitors", "list"))] == [
        ["fib", "daily"],
        ["fib", "nightly"],
    ]
    edited = "monitor daily of fib changed\n"
    assert line("monitors", "edit", "fib", "daily", "--set", "interval=3600") == edited
    changed = line.json("monitors", "edit", "fib", "daily", "--set", 'strategy="rolling"')
    assert (changed["settings"]["interval"], changed["settings"]["strategy"]) == (3600, "rolling")
    assert line("monitors", "resume", "fib", "daily") == "monitor daily of fib goes on\n"
    assert line.json("monitors", "resume", "fib", "daily")["paused"] is False
    assert line("monitors", "run", "fib", "daily") == "monitor daily of fib looks now\n"
    assert line.json("monitors", "run", "fib", "daily")["name"] == "daily"
    assert line("monitors", "pause", "fib", "daily") == "monitor daily of fib rests\n"
    assert line.json("monitors", "pause", "fib", "daily")["activity"] == "paused"
    tested = line.run("monitors", "test", "fib", "daily")
    assert tested.status == 1
    assert "not public" in tested.err
    assert line.json("monitors", "test", "fib", "daily")["ok"] is False
    history = line.json("monitors", "history", "fib", "daily")
    assert [row[2:4] for row in rows(line("monitors", "history", "fib", "daily"))] == [
        [one["outcome"], "-"] for one in history
    ]
    for name in ("daily", "nightly"):
        said = line("monitors", "delete", "fib", name, "--yes")
        assert said == f"monitor {name} of fib deleted\n"


def observed(line: Line, server: PlatformServer) -> None:
    assert "rollout 1 | succeeded" in line("logs", "fib")
    server.log_path("fib", 2).write_text("2025-11-20T07:00:00.000Z w4 g2 | hi\n")
    assert line("logs", "fib", "2", "--search", "h", "--replica", "4") == (
        "2025-11-20T07:00:00.000Z w4 g2 | hi\n"
    )
    assert line.json("logs", "fib", "2", "--lines", "1")["lines"][0]["text"] == "hi"
    assert rows(line("metrics", "fib", "--span", "300")) == []
    assert line.json("metrics", "fib", "2", "--since", "2025-11-20T07:00:00Z")["span_s"] > 10
    assert line("metrics", "fib", "2", "--curves").split() == ["series", "step", "value"]
    assert line.json("metrics", "fib", "2", "--curves") == {"curves": {}}


def workspaces(line: Line) -> None:
    for form in ([], ["--json"]):
        for words in (["list"], ["folders", "admin"]):
            assert line.run("workspaces", *words, *form).status == 0
        for word, why in (("start", "start the platform with"), ("open", "start it first")):
            refused = line.run("workspaces", word, "admin", *form)
            assert (refused.status, why in refused.err) == (1, True)
    assert "no workspace of 'eve'" in line.run("workspaces", "stop", "admin", "--user", "eve").err


def deletions(line: Line) -> None:
    assert line("undeploy", "fib", "3", "--yes") == "fib version 3 is no longer deployed\n"
    assert line.json("undeploy", "fib", "-y")["items"]
    assert line("delete", "fib", "3", "-y") == "fib version 3 deleted\n"
    assert line("delete", "fib", "-y") == "fib with all its versions deleted\n"
    assert line("groups", "delete", "spare", "-y") == "group spare deleted\n"
    assert line("users", "delete", "eve", "-y") == "user eve deleted\n"


# ---- how things fail


def test_a_rollout_that_fails_is_told_with_its_reason_and_log(
    line: Line, server: PlatformServer, tmp_path: Path
) -> None:
    line("register", model_folder(tmp_path / "m"), "-s", "breaks", "-g", "admin")
    server.node.holding = True
    engine = server.node.engine
    settle = engine.settle

    def fail(*_: Any, **__: Any) -> None:
        for key in engine.deployments:
            if key.startswith("breaks/"):
                for worker in engine.workers(deployment=key):
                    engine.fail(worker)
        settle(loads=False)

    try:
        server.call(lambda: setattr(engine, "settle", fail))
        said = line.run("deploy", "breaks", "1")
        assert said.status == 1
        assert said.err.startswith("modelcloud: initial ")
        assert said.err.endswith("setup raised ValueError\n")
        said = line.run("deploy", "breaks", "1", "--json")
        assert (said.status, said.out) == (1, "")
    finally:
        server.call(lambda: setattr(engine, "settle", settle))
        server.node.holding = False


def test_what_exceeds_a_quota_is_told_with_the_sums(
    line: Line, server: PlatformServer, tmp_path: Path
) -> None:
    line("register", model_folder(tmp_path / "m"), "-s", "large", "-g", "admin")
    said = line.run("deploy", "large", "1", "-n", "60")
    assert said.status == 1
    assert "over quota" in said.err
    assert "the node" in said.err


def test_a_model_that_is_refused_leaves_no_upload_behind(
    line: Line, server: PlatformServer, tmp_path: Path
) -> None:
    said = line.run("register", model_folder(tmp_path / "m"), "-s", "predict", "-g", "admin")
    assert said.status == 2
    assert "an address of the platform's own" in said.err
    assert [*(server.data / "staging").iterdir()] == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["delete", "x"], ["delete", "x", "1"], ["undeploy", "x"], ["undeploy", "x", "1"],
        ["users", "delete", "x"], ["groups", "delete", "x"], ["instance-types", "delete", "x"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_what_is_deleted_for_good_is_asked_for_first(
    line: Line, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    said = line.run(*arguments)
    assert said.status == 2
    assert "--yes" in said.err
    asked: list[str] = []
    yes = False

    def answer(text: str, **_: Any) -> bool:
        asked.append(text)
        return yes

    monkeypatch.setattr("typer.confirm", answer)
    said = line.run(*arguments, at=Terminal)
    assert (said.status, said.err) == (1, "modelcloud: nothing was deleted\n")
    assert "x" in asked[0]
    yes = True
    assert "no " in line.run(*arguments, at=Terminal).err  # such service, user …


@pytest.mark.parametrize(
    "arguments",
    [
        ["deploy", "fib"],
        ["deploy", "fib", "one"],
        ["deploy", "fib", "1", "--dispatch-key", "header:a"],
        ["deploy", "fib", "1", "--step", "5:60"],
        ["deploy", "fib", "1", "--dispatch", "fastest"],
        ["scale", "fib", "1", "0"],
        ["traffic", "fib", "-w", "2"],
        ["traffic", "fib", "-w", "2=nan"],
        ["deploy", "fib", "1", "--weight", "inf"],
        ["deploy", "fib", "1", "--strategy", "canary", "--max-error-rate", "2"],
        ["groups", "quota", "team", "--cpu", "-1"],
        ["traffic", "fib", "--sticky", "cookie"],
        ["metrics", "fib", "--curves"],
        ["edit-version", "fib", "1"],
        ["edit-service", "fib"],
        ["users", "edit", "bob"],
        ["groups", "edit", "team"],
        ["instance-types", "edit", "small"],
        ["register", "."],
        ["register", ".", "-s", "fib", "--metric", "auc"],
        ["edit-version", "fib", "1", "--metric", "auc=1e999"],
        ["update", "fib", "1", "--artifact", "x"],
        ["update", "fib", "1", "--token", "x"],
        ["rollback", "http://127.0.0.1:9", "--url", "http://127.0.0.1:8"],
        ["logs", "fib", "--lines", "many"],
        ["audit", "--since", "yesterday"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_one_line_and_2(line: Line, arguments: list[str]) -> None:
    said = line.run(*arguments)
    assert (said.status, said.out) == (2, ""), said
    assert said.err.startswith("modelcloud: ")
    assert said.err.count("\n") == 1


def test_a_log_is_followed_as_text_and_as_json(
    line: Line, server: PlatformServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line("register", model_folder(tmp_path / "m"), "-s", "talks", "-g", "admin")
    server.log_path("talks", 1).write_text(
        "2025-11-20T07:00:00.000Z w1 g1 | one\n2025-11-20T07:00:00.000Z w1 g1 | \x1b[2Jtwo\n"
    )
    shown: list[str] = []

    def write(text: str, **_: Any) -> None:
        shown.append(text)
        if len(shown) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("builtins.print", write)
    assert line.run("logs", "talks", "1", "-f").status == 130
    assert [text.partition(" | ")[2] for text in shown] == ["one", "\\x1b[2Jtwo"]
    shown.clear()
    assert line.run("logs", "talks", "1", "-f", "--json").status == 130
    assert [json.loads(text)["text"] for text in shown] == ["one", "\x1b[2Jtwo"]


def test_a_label_is_removed_by_name(line: Line, tmp_path: Path) -> None:
    line("register", model_folder(tmp_path / "m"), "-s", "named", "-g", "admin")
    line("deploy", "named", "1", "--label", "stable")
    line("label", "named", "canary", "1")
    said = line("label", "named", "canary", "--remove")
    assert said == "/predict/named/canary leads nowhere any more\n"
    again = line.run("label", "named", "canary", "--remove")
    assert (again.status, "there are: stable" in again.err) == (1, True)
    for wrong in (["label", "named", "canary"], ["label", "named", "canary", "1", "--remove"]):
        assert "accepted: a VERSION, or --remove" in line.run(*wrong).err


def test_a_label_does_not_undo_what_another_changed_meanwhile(
    line: Line, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    line("register", model_folder(tmp_path / "m"), "-s", "moved", "-g", "admin")
    line("deploy", "moved", "1")
    traffic = Platform.traffic

    def slowly(self: Platform, service: str) -> dict[str, Any]:
        found = traffic(self, service)
        self.set_traffic(service, labels={"other": 1})
        return found

    monkeypatch.setattr(Platform, "traffic", slowly)
    said = line.run("label", "moved", "mine", "1")
    assert said.status == 1
    assert "was changed since you read it" in said.err
