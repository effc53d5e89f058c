"""Attacks on who may reach and change what, tried on a really started server from outside.

Rows 1 to 7, 11, 13, 28 and 39 of the table of attacks: open management, hidden ports, a verb or a
path that was forgotten, rebinding, guessing, cross-site requests, secrets that show.
"""

from __future__ import annotations

import os
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelcloud.serve.access import MAX_GUESSES
from modelcloud.serve.admin import ADDRESSES
from support.models import obedient
from support.processes import family, links, sockets
from support.raw import Answer, connect, get, post
from support.server import Server, serve, wait_for

pytestmark = pytest.mark.xdist_group("attacks")

TOKEN = "canary-7b1f"
LOOPBACK = "0100007F"  # 127.0.0.1 as /proc/net writes it

#: All that anybody may do. What is not in here is refused, so a new address is, too, until someone
#: decides otherwise here.
OPEN_TO_ALL = {
    "/", "/meta", "/setup", "/healthcheck", "/readyz", "/metrics", "/docs.json", "/redoc",
    "/redoc/*",
}  # fmt: skip
VERBS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND",
         "JUNK", "get", "GET\t"]  # fmt: skip

SPY = """
import os
from pathlib import Path

def spy(n: int = 0) -> dict:
    def look(pid):
        folder, seen = Path("/proc") / str(pid), {}
        for name in ("cmdline", "environ"):
            try:
                seen[name] = (folder / name).read_bytes().decode("latin-1")
            except OSError:
                seen[name] = ""
        try:
            seen["fds"] = [os.readlink(fd) for fd in (folder / "fd").iterdir() if fd.exists()]
        except OSError:
            seen["fds"] = []
        return seen
    return {str(pid): look(pid) for pid in (os.getpid(), os.getppid())}
"""


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """On defaults: loopback, no token."""
    with serve(obedient(tmp_path_factory.mktemp("local"))) as running:
        yield running


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Bound to every address, without a token."""
    model = obedient(tmp_path_factory.mktemp("public"))
    with serve(model, "--host", "0.0.0.0", "--replicas", "1") as running:
        yield running


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Bound to every address, with a token."""
    folder = tmp_path_factory.mktemp("guarded")
    secret = folder / "token"
    secret.write_text(TOKEN)
    model = obedient(folder)
    with serve(
        model, "--host", "0.0.0.0", "--replicas", "1", "--admin-token-file", secret,
        "--log-dir", folder / "logs",
    ) as running:  # fmt: skip
        yield running


def ask(server: Server, request: bytes, *, source: str = "127.0.0.1") -> Answer:
    """One request on a connection of its own; its status is 0 if there was no answer."""
    with connect(server.port, source=source) as raw:
        try:
            return raw.send(request).read(head_only=request.startswith(b"HEAD"))
        except (EOFError, ConnectionResetError):
            return Answer(0, {}, b"")


def bearer(token: str = TOKEN) -> str:
    return f"Authorization: Bearer {token}"


def rollouts(server: Server) -> int:
    """How many there were so far; read as only the operator may."""
    answer = ask(server, get("/rollouts", bearer()))
    return len(answer.json()["rollouts"]) if answer.status == 200 else -1


# ---- rows 1 and 2: what listens


def check_sockets(server: Server) -> None:
    pids = family(server.process.pid)
    children = set(server.children())
    workers = set(server.pids("worker"))
    found = sockets(pids)
    assert set(found.tcp) == {(LOOPBACK, server.port)}
    (holders,) = found.tcp.values()
    assert holders <= {server.process.pid, *children - workers}, "a worker holds the client's door"
    assert found.udp == {}
    for name in found.unix:
        assert not name.startswith("@"), f"anybody can connect to the abstract socket {name}"
        path = Path(name)
        try:
            mode, folder = path.stat(), path.parent.stat()
        except FileNotFoundError:  # its worker has just ended
            continue
        assert stat.S_IMODE(mode.st_mode) == 0o600
        assert stat.S_IMODE(folder.st_mode) == 0o700
        assert mode.st_uid == folder.st_uid == os.getuid()


def test_only_the_gateway_can_be_reached_and_only_from_this_machine(local: Server) -> None:
    check_sockets(local)
    names = sockets(local.pids("worker")).unix
    assert len(names) == 2, "each worker listens on its own socket: else this test sees nothing"


def test_an_update_opens_nothing_else_while_it_lasts(local: Server) -> None:
    answer = local.post("/setup?wait=false", {"load_s": 1})
    seen = set()
    while True:
        rollout = local.get(f"/rollouts/{answer.json()['rollout']}").json()
        check_sockets(local)
        seen.add(rollout["step"])
        if rollout["state"] not in {"pending", "running"}:
            break
    assert rollout["state"] == "succeeded"
    assert "loading" in seen


# ---- rows 3 and 4: every verb at every address


def concrete(path: str) -> str:
    return {"/rollouts/*": "/rollouts/1", "/redoc/*": "/redoc/init.js"}.get(path, path)


def attempts() -> list[tuple[str, str, tuple[str, ...]]]:
    upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
               "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")  # fmt: skip
    paths = sorted({address.path for address in ADDRESSES})
    plain = [(path, verb, ()) for path in paths for verb in VERBS]
    return plain + [(path, verb, upgrade) for path in paths for verb in ("GET", "POST")]


@pytest.mark.parametrize("kind", ["public", "guarded"])
def test_anonymous_requests_can_read_what_is_listed_and_nothing_else_by_any_verb(
    kind: str, request: pytest.FixtureRequest
) -> None:
    server: Server = request.getfixturevalue(kind)
    refused = {"public": 403, "guarded": 401}[kind]
    offered = {(address.path, address.method) for address in ADDRESSES}
    before = rollouts(server)
    for path, verb, headers in attempts():
        answer = ask(server, get(concrete(path), "Content-Length: 0", *headers, method=verb))
        case = (path, verb, headers, answer)
        method = "GET" if verb == "HEAD" else verb
        if (path, method) not in offered:
            if verb == "OPTIONS":
                assert (answer.status, answer.body) == (204, b""), case
            else:
                assert answer.status in {400, 405}, case
        elif method == "GET" and path in OPEN_TO_ALL:
            assert answer.status == 200, case
        else:
            assert answer.status == refused, case
    assert rollouts(server) == before


def test_with_the_token_each_of_them_is_open(guarded: Server) -> None:
    """Control: the refusals above were the gate's, not those of a door that never opens."""
    for address in ADDRESSES:
        if (address.method, address.path) == ("POST", "/rollback"):
            continue  # changes what the other tests look at
        answer = ask(guarded, get(concrete(address.path), bearer(), "Content-Length: 0",
                                  method=address.method))  # fmt: skip
        assert answer.status in {200, 404}, (address, answer)  # no rollout is called 1


def test_a_model_can_be_called_but_not_changed_by_anyone_on_all_addresses(public: Server) -> None:
    assert ask(public, post("/ask", {"x": 1})).status == 200
    answer = ask(public, post("/setup", {"answer": 2}, bearer("")))
    assert answer.status == 403
    assert "--admin-token" in answer.json()["error"]


# ---- rows 5, 6 and 7: names, hosts and paths


FOREIGN_HOSTS = [
    "evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.evil.example",
    "localhost/", "localhost/setup?", "evil.example#localhost", "evil@localhost", "localhost\\evil",
    "localhost, evil.example", "0x7f.1", "2130706433", "[::ffff:127.0.0.1]", "0.0.0.0", "",
]  # fmt: skip


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
def test_a_change_that_came_under_a_foreign_name_is_refused(local: Server, host: str) -> None:
    """DNS rebinding: the page is evil's, the address behind the name is ours by now."""
    before = rollouts(local)
    for more in ([], ["X-Forwarded-Host: localhost"], ["Forwarded: host=localhost"]):
        answer = ask(local, post("/setup", {"answer": 666}, *more, host=host))
        assert answer.status in {400, 403}, answer
        assert ask(local, get("/rollouts", host=host)).status in {400, 403}
    assert rollouts(local) == before


PATHS = [
    "/ask/../setup", "/./setup", "//setup", "/setup/", "/setup;x", "/setup/.", "/%2fsetup",
    "/%2e/setup", "/%2e%2e/setup", "/ask/%2e%2e/setup", "/%252e%252e/setup", "/ask/..%2fsetup",
    "/ask\\..\\setup", "/%5csetup", "/setup%00", "/setup%20", "/setup%0a", "/SETUP", "/setup#x",
    "/setup%3fwait=false", "/setup%23", "/%73etup", "/%73%65%74%75%70", "/setup?x=/ask", "/setup?",
    "http://127.0.0.1/setup", "http://localhost/setup", "HTTP://localhost/setup",
    "http://evil.example/setup", "http://localhost@evil.example/setup", "http:///setup",
    "https://localhost/setup", "ftp://localhost/setup", "localhost/setup", "*/setup",
    "/model/setup", "/model/../setup", "/se\u200btup", "/\uff0fsetup",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_no_spelling_of_a_path_leads_around_the_gate(guarded: Server, path: str) -> None:
    before = rollouts(guarded)
    answer = ask(guarded, post(path, {"answer": 666}))
    assert answer.status in {400, 401, 403, 404, 405}, answer
    for prefix in ("/rollouts", "/%72ollouts", "//rollouts", "/rollouts?"):
        assert ask(guarded, get(prefix)).status in {400, 401}
    assert rollouts(guarded) == before


def test_the_same_request_with_the_token_is_let_through_whatever_its_spelling(
    guarded: Server,
) -> None:
    for path in ("/rollouts", "/%72ollouts", "/rollouts?", "http://localhost/rollouts"):
        assert ask(guarded, get(path, bearer())).status == 200


# ---- row 11: guessing


@pytest.mark.parametrize(
    "value",
    [b"Bearer s\xc3\xa9cret", b"Bearer \xff\xfe", b"Bearer", b"", b"Basic \xe9",
     b"Bearer " + b"x" * 9000, b"bearer canary-7b1", b"Bearer canary-7b1f canary-7b1f"],
)  # fmt: skip
def test_a_wrong_token_is_401_whatever_its_bytes(guarded: Server, value: bytes) -> None:
    request = get("/rollouts").replace(b"\r\n\r\n", b"\r\nAuthorization: %b\r\n\r\n" % value)
    answer = ask(guarded, request, source="127.0.0.3")
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert b"canary" not in answer.body


def test_who_guesses_is_made_to_wait_and_nobody_else_is(guarded: Server) -> None:
    guesser = "127.0.0.2"
    statuses = [
        ask(guarded, post("/setup", {}, bearer(f"guess-{number}")), source=guesser).status
        for number in range(1000)
    ]
    assert statuses == [401] * MAX_GUESSES + [429] * (1000 - MAX_GUESSES)
    right = ask(guarded, get("/rollouts", bearer()), source=guesser)
    assert right.status == 429, "the right guess must not show"
    assert int(right.headers["retry-after"]) > 0
    assert ask(guarded, post("/ask", {}), source=guesser).status == 200
    assert ask(guarded, get("/rollouts", bearer())).status == 200


# ---- row 13: pages of others


FORM = "Content-Type: application/x-www-form-urlencoded"
TEXT = "Content-Type: text/plain"


@pytest.mark.parametrize(
    "headers",
    [
        ("Origin: https://evil.example",),
        ("Origin: https://evil.example", FORM),
        ("Origin: https://evil.example", TEXT),
        ("Origin: https://evil.example", "Sec-Fetch-Site: cross-site", TEXT),
        ("Origin: null", TEXT),
        ("Origin: http://localhost:1", TEXT),
        ("Origin: http://localhost.evil.example",),
        ("Sec-Fetch-Site: cross-site",),
        ("Sec-Fetch-Site: same-site", TEXT),
        ("Origin: http://localhost", "Origin: https://evil.example"),
        ("Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: cross-site"),
    ],
)
def test_a_page_of_another_origin_can_change_nothing(
    local: Server, headers: tuple[str, ...]
) -> None:
    before = rollouts(local)
    for path in ("/setup", "/setup?wait=false", "/rollback"):
        answer = ask(local, plain_post(path, b'{"answer": 666}', *headers))
        assert answer.status == 403, answer
        assert "access-control-allow-origin" not in answer.headers
    assert ask(local, get("/rollouts", *headers)).status == 403
    assert rollouts(local) == before


@pytest.mark.parametrize("content_type", [FORM, TEXT, "Content-Type: application/json", "X: y"])
def test_a_program_that_is_no_page_may_whatever_content_type_it_claims(
    local: Server, content_type: str
) -> None:
    """`curl -d` claims a form."""
    answer = ask(local, plain_post("/setup?wait=false", b'{"answer": 3}', content_type))
    assert answer.status == 202, answer


def plain_post(path: str, body: bytes, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


# ---- rows 28 and 39: secrets


def test_a_model_finds_the_token_in_nothing_that_it_was_given_or_can_read_of_the_node(
    tmp_path: Path,
) -> None:
    """What keeps a hostile model from reading the node's memory is for the system to bring.

    A worker is the same user as the node, without limits of its own.
    """
    (tmp_path / "spy.py").write_text(SPY)
    target = f"{tmp_path / 'spy.py'}:spy"
    with serve(target, "--replicas", "1", MODELCLOUD_ADMIN_TOKEN=TOKEN) as server:
        assert ask(server, post("/setup", {})).status == 401
        assert ask(server, post("/setup", {}, bearer())).status == 200
        seen = ask(server, post("/spy", {"n": 1}))
        looked_at = {int(pid) for pid in next(iter(seen.json().values()))}
        assert server.process.pid in looked_at
        assert looked_at & set(server.pids("worker"))
        assert b"modelcloud.dataplane.worker" in seen.body
        assert TOKEN.encode() not in seen.body
        for pid in (*server.pids("worker"), *server.pids("gateway")):
            assert not [link for link in links(pid) if "modelcloud-settings" in link]
        for pid in server.pids("worker"):
            assert not memory_holds(pid, TOKEN.encode())
            assert memory_holds(pid, b"modelcloud.dataplane.worker")  # control


def memory_holds(pid: int, what: bytes) -> bool:
    """Whether anything that the process can write holds these bytes."""
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            match = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line)
            if match is None:
                continue
            start, end = int(match[1], 16), int(match[2], 16)
            memory.seek(start)
            try:
                if what in memory.read(end - start):
                    return True
            except OSError:
                continue
    return False


def test_the_token_shows_nowhere(guarded: Server, tmp_path: Path) -> None:
    for request in (
        get("/rollouts", bearer()), post("/setup", {"nothing": 1}, bearer()),
        post("/setup", b"{", bearer()), get("/nowhere", bearer()), post("/ask", {}, bearer()),
        get("/setup", bearer(), method="DELETE"), post("/setup", {"artifact": "../x"}, bearer()),
    ):  # fmt: skip
        assert TOKEN.encode() not in ask(guarded, request).body
    for address in ADDRESSES:
        if address.method == "GET":
            answer = ask(guarded, get(concrete(address.path), bearer()))
            assert TOKEN.encode() not in answer.body + str(answer.headers).encode(), address
    status = subprocess.run(
        [sys.executable, "-m", "modelcloud.cli.main", "status", guarded.url],
        env={**os.environ, "MODELCLOUD_ADMIN_TOKEN": TOKEN}, capture_output=True, check=True,
    )  # fmt: skip
    assert b"rollout" in status.stdout
    assert TOKEN.encode() not in status.stdout + status.stderr

    pids = family(guarded.process.pid)
    assert len(pids) >= 3
    for pid in pids:
        for name in ("cmdline", "environ"):
            assert TOKEN.encode() not in Path(f"/proc/{pid}/{name}").read_bytes(), (pid, name)
    logs = wait_for("log files", lambda: list((log_dir(guarded)).iterdir()))
    run_folder = Path(next(iter(sockets(guarded.pids("worker")).unix))).parent
    for file in [*logs, *run_folder.rglob("*")]:
        if file.is_file():
            assert TOKEN.encode() not in file.read_bytes(), file
    assert TOKEN not in guarded.output


def log_dir(server: Server) -> Path:
    arguments = server.process.args
    assert isinstance(arguments, list)
    return Path(arguments[arguments.index("--log-dir") + 1])


def test_the_clients_door_is_closed_to_workers_of_the_next_generation_too(local: Server) -> None:
    """A worker that inherited the listening socket could answer clients in the server's name."""
    local.update(answer=7)
    for pid in local.pids("worker"):
        assert sockets([pid]).tcp == {}
    with socket.create_connection(("127.0.0.1", local.port)):
        check_sockets(local)
