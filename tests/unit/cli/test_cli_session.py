"""Signing in: where passwords come from, where the token is kept, and who may read it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelcloud import client, errors
from modelcloud.cli import session
from modelcloud.platform import once
from support.commands import Run, Terminal
from support.control import PASSWORD
from support.platform_server import PlatformServer, platform_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformServer]:
    with platform_server(tmp_path_factory.mktemp("platform")) as server:
        yield server


@pytest.fixture(autouse=True)
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the command line keeps them; nothing else of this environment matters."""
    for name in (session.URL_VARIABLE, session.TOKEN_VARIABLE, "MODELCLOUD_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "config" / "credentials.json"
    monkeypatch.setenv(session.CONFIG_VARIABLE, str(path))
    return path


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Someone at a terminal types the password, whatever is asked for."""
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("modelcloud.cli.account.getpass", lambda _: PASSWORD)


def pipe(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


def test_a_password_from_a_pipe_signs_in_and_out(
    run: Run, server: PlatformServer, credentials: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe(monkeypatch, PASSWORD)
    said = run("login", f"{server.url}/", "--user", "admin")
    assert (said.status, said.out) == (0, f"signed in at {server.url} as admin\n"), said.err
    kept = json.loads(credentials.read_text())
    assert kept["url"] == server.url
    assert PASSWORD not in credentials.read_text()
    assert credentials.stat().st_mode & 0o777 == 0o600
    assert credentials.parent.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in credentials.parent.iterdir()] == [credentials.name]
    assert "admin" in run("whoami").out
    assert run("logout").out == "signed out\n"
    assert not credentials.exists()
    monkeypatch.setenv(session.TOKEN_VARIABLE, kept["token"])
    said = run("whoami", "--url", server.url)
    assert said.status == 1
    assert "expired or revoked" in said.err


def test_a_password_from_the_environment_signs_in(
    run: Run, server: PlatformServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELCLOUD_PASSWORD", PASSWORD)
    said = run("login", server.url, "-u", "admin", "--json")
    record = json.loads(said.out)
    assert record["user"] == "admin"
    assert "token" not in record


def test_no_command_takes_a_password_as_an_argument(run: Run) -> None:
    for command in (["login"], ["passwd"], ["users", "create"], ["users", "edit"]):
        flags = [line for line in run(*command, "--help").out.splitlines() if "password" in line]
        assert not any("<" in line or "TEXT" in line for line in flags)


@pytest.mark.usefixtures("typed")
def test_at_a_terminal_name_and_password_are_asked_for(
    run: Run, server: PlatformServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("typer.prompt", lambda *_, **__: "admin")
    assert run("login", server.url).status == 0


@pytest.mark.parametrize(
    ("lines", "arguments", "status", "words"),
    [
        (["wrong horse battery"], ["-u", "admin"], 1, "user name or the password is wrong"),
        ([], ["-u", "admin"], 2, "no password came"),
        ([PASSWORD], [], 2, "name --user"),
    ],
)
def test_who_does_not_sign_in_is_told_why_and_nothing_is_kept(
    run: Run, server: PlatformServer, credentials: Path, monkeypatch: pytest.MonkeyPatch,
    lines: list[str], arguments: list[str], status: int, words: str,
) -> None:  # fmt: skip
    pipe(monkeypatch, *lines)
    said = run("login", server.url, *arguments)
    assert (said.status, said.out) == (status, "")
    assert words in said.err
    assert said.err.count("\n") == 1
    assert not credentials.exists()


def test_without_signing_in_every_command_says_how_to(run: Run) -> None:
    said = run("services")
    assert said.status == 1
    assert said.err == (
        "modelcloud: not signed in at http://127.0.0.1:8000; "
        "run: modelcloud login http://127.0.0.1:8000\n"
    )


def test_a_token_goes_to_the_platform_it_is_of_and_to_no_other(
    run: Run, server: PlatformServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELCLOUD_PASSWORD", PASSWORD)
    run("login", server.url, "-u", "admin")
    said = run("services", "--url", "http://127.0.0.1:9")
    assert "not signed in at http://127.0.0.1:9" in said.err
    monkeypatch.setenv(session.URL_VARIABLE, "http://127.0.0.1:9")
    assert "not signed in at http://127.0.0.1:9" in run("logout").err
    monkeypatch.setenv(session.URL_VARIABLE, server.url)
    assert run("logout").status == 0


def test_a_session_that_has_ended_is_forgotten(
    run: Run, server: PlatformServer, credentials: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.remember(server.url, "of-yesterday")
    assert run("logout").status == 0
    assert not credentials.exists()


def test_a_broken_file_of_credentials_is_named(run: Run, credentials: Path) -> None:
    session.remember("http://p.test", "t")
    credentials.write_text("{")
    said = run("services")
    assert said.status == 2
    assert str(credentials) in said.err


def test_a_place_where_nothing_can_be_kept_is_named(
    run: Run, server: PlatformServer, credentials: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials.parent.write_text("no folder")
    monkeypatch.setenv("MODELCLOUD_PASSWORD", PASSWORD)
    said = run("login", server.url, "-u", "admin")
    assert said.status == 2
    assert f"{credentials} cannot be written" in said.err


def test_a_password_is_changed_by_two_lines_of_a_pipe(
    run: Run, server: PlatformServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server.sign_in() as admin:
        admin.create_user("bob", PASSWORD, must_change_password=True)
    pipe(monkeypatch, PASSWORD)
    said = run("login", server.url, "-u", "bob")
    assert said.err == "change your password first: modelcloud passwd\n"
    assert "change your password first" in run("services").err
    pipe(monkeypatch, PASSWORD, "another horse battery")
    assert run("passwd").out == "password changed\n"
    assert run("services").status == 0


@pytest.mark.usefixtures("typed")
def test_a_new_password_is_typed_twice_alike(
    run: Run, server: PlatformServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server.sign_in() as admin:
        monkeypatch.setenv(session.TOKEN_VARIABLE, admin.token or "")
    answers = iter(["one horse battery", "two horse battery"])
    monkeypatch.setattr("modelcloud.cli.account.getpass", lambda _: next(answers))
    said = run("users", "create", "eve", "--url", server.url)
    assert said.status == 2
    assert "the two passwords differ" in said.err


def test_one_who_signs_in_by_the_environment_does_not_give_that_password_to_others(
    run: Run, server: PlatformServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELCLOUD_PASSWORD", PASSWORD)
    run("login", server.url, "-u", "admin")
    pipe(monkeypatch)
    said = run("users", "create", "eve")
    assert said.status == 2
    assert "no new password came" in said.err


def test_what_begins_something_is_sent_again_with_its_key_until_an_answer_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(once, "RETRY_S", 0.0)
    keys: list[str] = []

    def call(key: str) -> str:
        keys.append(key)
        if len(keys) < once.TRIES:
            raise client.Unreachable("reset")
        return "done"

    assert session.once(call) == "done"
    assert len(keys) == once.TRIES
    assert len(set(keys)) == 1

    def refuse(key: str) -> str:
        keys.append(key)
        raise errors.Conflict("online already")

    with pytest.raises(errors.Conflict):
        session.once(refuse)
    assert len(keys) == once.TRIES + 1
    assert len(set(keys)) == 2

    def silent(_: str) -> str:
        raise client.Unreachable("reset")

    with pytest.raises(client.Unreachable):
        session.once(silent)
