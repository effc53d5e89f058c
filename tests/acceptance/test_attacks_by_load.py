"""Attacks by number and size: slow clients, floods, what piles up where somebody does not read.

Rows 32 and 33 of the table of attacks, and the ways in which one anonymous client could take a
gateway's memory, descriptors or life.
"""

from __future__ import annotations

import contextlib
import resource
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from support.load import Sample, failures, load
from support.models import obedient
from support.processes import cpu_s, rss
from support.raw import connect, get, post
from support.server import Server, serve, wait_for

pytestmark = pytest.mark.xdist_group("attacks")

MIB = 1 << 20
MODEL = """
import time
import modelcloud
from modelcloud.data_types import number, text

@modelcloud.setup(options={"a": number(default=1)})
def setup(options):
    return None

@modelcloud.command("big", inputs={"bytes": number, "id": number(default=0)},
                    outputs={"id": number, "text": text})
def big(model, inputs):
    return {"id": inputs["id"], "text": "x" * int(inputs["bytes"])}

@modelcloud.command("ask", inputs={"x": number(default=0)}, outputs={"answer": number})
def ask(model, inputs):
    return {"answer": inputs["x"]}

@modelcloud.command("sleep", inputs={"s": number, "pad": text(default="")}, outputs={"s": number})
def sleep(model, inputs):
    time.sleep(inputs["s"])
    return {"s": inputs["s"]}
"""


@pytest.fixture(scope="module", autouse=True)
def descriptors() -> Iterator[None]:
    """This process may open as many as it is able to; what it starts must see to that itself."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("load")
    (folder / "model.py").write_text(MODEL)
    with serve(
        folder / "model.py", "--max-buffered", "24M", "--max-body", "16M", "--header-timeout", "8",
    ) as running:  # fmt: skip
        yield running


def gateway(server: Server) -> int:
    (pid,) = server.pids("gateway")
    return pid


@contextmanager
def unharmed(server: Server, more: int) -> Iterator[None]:
    """The same gateway lives after the block, held at most `more` bytes more, and serves."""
    pid, workers = gateway(server), server.pids("worker")
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # begins the peak anew
    before = rss(pid)
    yield
    assert gateway(server) == pid, "the gateway died, and with it every client's connection"
    assert server.pids("worker") == workers
    grown = rss(pid, peak=True) - before
    assert grown < more, f"{grown / MIB:.0f} MiB"
    assert server.post("/ask", {"x": 5}).json() == {"answer": 5}


# ---- row 32: slow clients


class Drips:
    """Connections that each send a request at a byte a second, and never end it."""

    def __init__(self, port: int, number: int, request: bytes) -> None:
        self._request = request
        self._ending = threading.Event()
        self.sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(number)]
        for one in self.sockets:
            one.setblocking(False)
        self._thread = threading.Thread(target=self._drip, daemon=True)
        self._thread.start()

    def _drip(self) -> None:
        at = 0
        while not self._ending.wait(1.0):
            for one in self.sockets:
                with contextlib.suppress(OSError):  # closed by the server
                    one.send(self._request[at : at + 1] or b"x")
            at += 1

    def closed(self) -> int:
        """How many the server has answered or closed by now."""
        with selectors.DefaultSelector() as selector:
            for one in self.sockets:
                selector.register(one, selectors.EVENT_READ)
            return len(selector.select(0))

    def end(self) -> None:
        self._ending.set()
        self._thread.join()
        for one in self.sockets:
            one.close()


def p99(samples: list[Sample]) -> float:
    return sorted(sample.seconds for sample in samples)[int(len(samples) * 0.99)]


def test_thousands_of_slow_and_idle_clients_do_not_slow_the_good_ones(server: Server) -> None:
    with unharmed(server, 100 * MIB), ExitStack() as stack:
        with load(server.port, rate=50, body={"x": 1}) as quiet:
            wait_for("quiet traffic", lambda: len(quiet.samples) >= 250)
        head = b"POST /ask HTTP/1.1\r\nHost: a\r\nX-Slow: "
        drips = Drips(server.port, 2000, head)
        stack.callback(drips.end)
        idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(2000)]
        for one in idle:
            stack.callback(one.close)
        wait_for("all of them", lambda: connections(server) >= 4000)
        with load(server.port, rate=50, body={"x": 1}) as running:
            wait_for("traffic beside them", lambda: len(running.samples) >= 250)
            assert drips.closed() < 2000, "they were gone before the measurement"
            wait_for("the end of every slow head", lambda: drips.closed() == 2000)
        assert failures(running.samples) == []
        # A few times the quiet value; below 20 ms, differences are the machine's.
        assert p99(running.samples) < 5 * max(p99(quiet.samples), 0.020)
    wait_for("the connections' end", lambda: connections(server) < 100)


def connections(server: Server) -> int:
    """How many the gateway holds."""
    for line in server.get("/metrics").text.splitlines():
        if line.startswith("modelcloud_open_connections{"):
            return int(float(line.split()[-1]))
    raise AssertionError("no such metric")


# ---- row 33: limits, and what they are for


def test_beyond_the_limit_a_connection_is_told_so_and_the_others_go_on(tmp_path: Path) -> None:
    with serve(obedient(tmp_path), "--replicas", "1", "--max-connections", "50") as server:
        held = [connect(server.port) for _ in range(50)]
        with ExitStack() as stack:
            raws = [stack.enter_context(one) for one in held]
            assert all(raw.send(post("/ask", {})).read().status == 200 for raw in raws)
            for _ in range(20):
                with connect(server.port) as other:
                    answer = other.read()
                    assert answer.status == 503
                    assert answer.headers["retry-after"]
                    assert other.closed()
            assert all(raw.send(post("/ask", {})).read().status == 200 for raw in raws)
        wait_for("room again", lambda: try_again(server))


def try_again(server: Server) -> bool:
    with connect(server.port) as raw:
        try:
            return raw.send(post("/ask", {})).read().status == 200
        except (OSError, EOFError):
            return False


def test_a_gateway_takes_the_descriptors_it_may_have(tmp_path: Path) -> None:
    """The usual soft limit of 1024 is below the connections that it promises."""
    _, most = before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, most))
    try:
        running = serve(obedient(tmp_path), "--replicas", "1")
        server = running.__enter__()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    with ExitStack() as stack:
        stack.push(running)
        raws = [stack.enter_context(connect(server.port)) for _ in range(400)]
        assert all(raw.send(post("/ask", {})).read().status == 200 for raw in raws)


# ---- floods


def flood(server: Server, request: Callable[[int], bytes], number: int, statuses: set[int]) -> None:
    """Many requests over a few connections, a few at a time."""
    with ExitStack() as stack:
        raws = [stack.enter_context(connect(server.port)) for _ in range(4)]
        for start in range(0, number, 40):
            for offset, raw in enumerate(raws):
                raw.send(b"".join(request(start + offset * 10 + n) for n in range(10)))
            for raw in raws:
                for _ in range(10):
                    answer = raw.read()
                    assert answer.status in statuses, answer


def test_memory_stays_flat_under_floods_of_what_nobody_offers(server: Server) -> None:
    kinds: list[tuple[Callable[[int], bytes], set[int]]] = [
        (lambda n: get(f"/unknown/{n}/" + "y" * (n % 500)), {404}),
        (lambda n: get(f"/ask?x={n}&" + "q" * 30_000), {400}),
        (lambda n: get(f"/unknown{n}", *(f"X-{n}-{i}: {'v' * 90}" for i in range(250))), {404}),
        (lambda n: get("/rollouts/" + "z" * (n % 3000)), {404}),
        (lambda n: get("/meta", f"Authorization: Bearer {n}", f"X-Request-ID: {n}"), {200}),
        (lambda n: post(f"/ask?{n}", {"unknown": n}), {400}),
    ]
    for request, statuses in kinds:  # what is allocated once is by now
        flood(server, request, 400, statuses)
    pid = gateway(server)
    before, node = rss(pid), rss(server.process.pid)
    with unharmed(server, 24 * MIB):
        flood(server, kinds[0][0], 10_000, kinds[0][1])
        for request, statuses in kinds[1:]:
            flood(server, request, 1200, statuses)
        assert rss(pid) - before < 8 * MIB
        assert rss(server.process.pid) - node < 8 * MIB


def test_clients_that_come_and_go_leave_nothing(server: Server) -> None:
    endings: list[bytes] = [b"", b"G", b"GET /ask HTTP/1.1\r\nHost: a\r\n", post("/ask", {"x": 1}),
                            post("/ask", {"x": 1})[:-2], b"\x16\x03\x01", get("/meta")]  # fmt: skip
    pid = gateway(server)
    for number in range(1000):
        visit(server, endings[number % len(endings)])
    before = rss(pid)
    with unharmed(server, 16 * MIB):
        for number in range(5000):
            visit(server, endings[number % len(endings)])
        assert rss(pid) - before < 4 * MIB
    wait_for("the connections' end", lambda: connections(server) < 10)


def visit(server: Server, words: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as visitor:
        visitor.sendall(words)


# ---- what piles up


def test_many_who_ask_for_the_docs_page_at_a_time_all_get_it(server: Server) -> None:
    """The node wrote what a gateway did not read yet without bound, and killed it for that."""
    with unharmed(server, 160 * MIB), ExitStack() as stack:
        raws = [stack.enter_context(connect(server.port)) for _ in range(64)]
        for raw in raws:
            raw.send(get("/redoc/swagger-ui-bundle.js"))
        sizes = {
            len(answer.body) for answer in (raw.read() for raw in raws) if answer.status == 200
        }
        assert len(sizes) == 1
        assert sizes.pop() > MIB


def test_large_bodies_for_the_node_are_refused_before_they_pile_up(tmp_path: Path) -> None:
    """64 MiB that the node had not read looked like a dead node, and the gateway ended itself."""
    padding = [f"X-{n}: {'y' * 1000}" for n in range(28)]
    request = post("/setup", b" " * MIB, *padding, host="evil.example")
    with serve(obedient(tmp_path), "--replicas", "1") as server, ExitStack() as stack:
        pid = gateway(server)
        raws = [stack.enter_context(connect(server.port)) for _ in range(70)]
        for raw in raws:
            raw.send(request[:-1])
        for raw in raws:  # all are whole at the same moment
            raw.send(request[-1:])
        statuses = [raw.read().status for raw in raws]
        assert set(statuses) == {403, 503}
        assert gateway(server) == pid


def test_an_endless_trailer_is_cut_however_much_body_came_before(server: Server) -> None:
    """What a body has earned in patience must not buy memory for what follows it."""
    start = (
        b"POST /ask HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"400000\r\n" + b" " * (4 * MIB) + b"\r\n0\r\nX-Trailer: "
    )
    with unharmed(server, 24 * MIB), connect(server.port) as raw:
        raw.send(start)
        with contextlib.suppress(OSError):  # closed
            for _ in range(64):
                raw.send(b"y" * MIB)
        assert raw.read().status == 431


def test_a_body_in_tiny_pieces_takes_no_more_memory_than_its_size(server: Server) -> None:
    with unharmed(server, 48 * MIB), connect(server.port) as raw:
        raw.send(b"POST /ask HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        raw.send(b"2\r\n  \r\n" * (5 * MIB))
        raw.send(b"2\r\n{}\r\n0\r\n\r\n")
        assert raw.read().json() == {"answer": 0}


def test_a_client_that_does_not_take_its_answers_cannot_have_them_piled_up(server: Server) -> None:
    with unharmed(server, 120 * MIB), connect(server.port) as raw:
        raw.send(b"".join(post("/big", {"bytes": 8 * MIB, "id": n}) for n in range(1000)))
        worked = [*server.pids("worker"), gateway(server)]
        standstill(worked)
        assert server.post("/big", {"bytes": MIB}).status_code == 200


def standstill(pids: list[int]) -> None:
    """Wait until these processes have stopped working."""

    def still() -> bool:
        before = cpu_s(*pids)
        time.sleep(0.5)  # the interval over which it is looked at
        return cpu_s(*pids) - before < 0.1

    wait_for("their rest", still)


def test_answers_that_wait_behind_a_slow_one_are_bounded_too(server: Server) -> None:
    with unharmed(server, 120 * MIB), connect(server.port) as raw:
        raw.send(post("/sleep", {"s": 3}) + post("/big", {"bytes": 8 * MIB}) * 63)
        with pytest.raises((EOFError, ConnectionResetError)):  # cut for what piled up
            raw.read()


def test_more_requests_than_may_be_under_way_are_all_answered_in_order(server: Server) -> None:
    """The limit holds requests back; it loses none, large or small, of commands or of the node."""
    kinds = [
        lambda n: post("/ask", {"x": n}),
        lambda n: post("/big", {"bytes": 20_000, "id": n}),
        lambda n: get(f"/nowhere/{n}"),
        lambda n: get("/setup"),
    ]
    with connect(server.port) as raw:
        raw.send(b"".join(kinds[n % 4](n) for n in range(2000)))
        for n in range(2000):
            answer = raw.read()
            if n % 4 == 0:
                assert answer.json() == {"answer": n}
            elif n % 4 == 1:
                assert answer.json()["id"] == n
            elif n % 4 == 2:
                assert (answer.status, answer.json()["error"]) == (404, f"nothing at /nowhere/{n}")
            else:
                assert "values" in answer.json()


def test_one_client_cannot_fill_the_queue_of_all_with_one_write(tmp_path: Path) -> None:
    """What it sent beyond its share waits on its own connection, not in the queue."""
    with (
        serve(obedient(tmp_path), "--replicas", "1", "--max-queue", "100") as server,
        connect(server.port) as greedy,
    ):
        greedy.send(post("/sleep", {"s": 0.005}) * 500)
        for _ in range(20):
            assert server.post("/ask", {}).status_code == 200
        assert {greedy.read().status for _ in range(500)} == {200}


def test_what_a_client_left_behind_is_not_held_until_its_turn(server: Server) -> None:
    """A queue place may outlast its client; its body must not."""
    with unharmed(server, 64 * MIB), ExitStack() as stack:
        for _ in range(4):  # both workers are busy, and more wait
            stack.enter_context(connect(server.port)).send(post("/sleep", {"s": 2}))
        for _ in range(40):
            with connect(server.port) as raw:
                raw.send(post("/sleep", {"s": 0, "pad": "y" * (8 * MIB)}))
                wait_for("it to be read", lambda raw=raw: not unsent(raw.socket))  # type: ignore[misc]


def unsent(one: socket.socket) -> int:
    """Bytes that the other side has not acknowledged."""
    import array
    import fcntl
    import termios

    left = array.array("i", [0])
    fcntl.ioctl(one, termios.TIOCOUTQ, left)
    return left[0]


def test_after_all_of_this_nothing_counts_as_held(server: Server) -> None:
    """Large bodies are still taken: what was counted as buffered was given back."""
    request = post("/sleep", {"s": 0, "pad": "y" * (10 * MIB)})

    def taken() -> bool:
        with ExitStack() as stack:
            raws = [stack.enter_context(connect(server.port)) for _ in range(2)]
            for raw in raws:
                raw.send(request[:-1])
            return all(raw.send(request[-1:]).read().status == 200 for raw in raws)

    wait_for("room for as much as ever", taken)
