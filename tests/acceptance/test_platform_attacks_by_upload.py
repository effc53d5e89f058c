"""What is sent or named to become a version, and should not, on a really started platform.

Rows 7, 24 to 27, 33 and 40 of the table of attacks. After each of these nothing is left on the
disk, and the control plane has read none of it into its memory.
"""

from __future__ import annotations

import bz2
import io
import struct
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx
import pytest

from modelcloud.dataplane.confinement import LEAST_VERSION, version
from modelcloud.errors import ModelcloudError, TooLarge
from modelcloud.platform import Platform
from support.attack import ECHO, ask, bearer, left_in, put_online
from support.processes import rss
from support.raw import Answer, connect, get, post
from support.server import wait_for
from support.up import Up, up

pytestmark = pytest.mark.xdist_group("platform-attacks")

MIB = 1024 * 1024
GIB = 1024 * MIB
LIMIT = 32 * MIB
#: What the control plane may grow by, over all that is tried here.
GROWTH = 60 * MIB
MODEL = ("model.py", ECHO.encode())


class Place(NamedTuple):
    """A platform, one user who manages a group, and another who manages another."""

    up: Up
    ann: Platform
    bob: Platform
    root: Path
    #: What is kept on the disk when nothing is under way.
    kept: dict[str, list[str]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("uploads")
    root = folder / "models"
    root.mkdir()
    with up(folder / "data", "--root", root, "--upload-limit", str(LIMIT)) as running:
        put_online(running, "echo", ECHO, root, group="admin")
        with running.user("ann") as ann, running.user("bob") as bob:
            yield Place(running, ann, bob, root, left_in(running.data))


@pytest.fixture(autouse=True)
def nothing_is_left(place: Place) -> Iterator[None]:
    (control,) = place.up.pids("control")
    before = rss(control, peak=True)
    yield
    wait_for("nothing is left", lambda: left_in(place.up.data) == place.kept)
    assert place.up.pids("control") == [control]
    assert rss(control, peak=True) - before < GROWTH
    assert [service["name"] for service in place.up.admin.services()] == ["echo"]
    assert place.up.predict("echo", {"x": 1}).json()["data"] == {"y": 1}


# ---- rows 24 to 26: what archives hold


def tar(*members: tuple[str, bytes] | tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            name, data = member
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def special(kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo("special")
    info.type, info.linkname, info.mode = kind, target, 0o4777
    return info


def zipped(*members: tuple[str, bytes], mode: int = 0) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members:
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, mode << 16
            archive.writestr(info, data)
    return out.getvalue()


OUT = ["../evil.py", "a/../../evil.py", "/tmp/evil.py", "..", "a\\..\\evil.py", "x\n/evil.py",
       "a" * 300, "/".join(["d"] * 40), "../models-evil/x"]  # fmt: skip


@pytest.mark.parametrize("pack", [tar, zipped])
@pytest.mark.parametrize("name", OUT, ids=lambda name: ascii(name[:20]))
def test_a_name_that_leads_out_is_refused(
    place: Place, pack: Callable[..., bytes], name: str
) -> None:
    refused(place, pack(MODEL, (name, b"evil")))
    assert not list(Path("/tmp").glob("evil.py"))
    assert not list(place.root.parent.rglob("*evil*"))


@pytest.mark.parametrize(
    "data",
    [
        tar(MODEL, special(tarfile.SYMTYPE, "/etc/passwd")),
        tar(MODEL, special(tarfile.SYMTYPE, "model.py")),
        tar(MODEL, special(tarfile.LNKTYPE, "model.py")),
        tar(MODEL, special(tarfile.FIFOTYPE)),
        tar(MODEL, special(tarfile.CHRTYPE)),
        tar(MODEL, special(tarfile.BLKTYPE)),
        tar(MODEL, MODEL),
        tar(MODEL, ("a", b""), ("a/b", b"")),
        zipped(("model.py", b"/etc/passwd"), mode=0o120777),
        zipped(("model.py", b""), mode=0o010644),
        zipped(MODEL, ("MODEL.PY/../model.py", b"")),
    ],
    ids=["symlink", "link inside", "hard link", "pipe", "character device", "block device",
         "twice", "file and folder", "zip symlink", "zip pipe", "zip dots"],
)  # fmt: skip
def test_nothing_but_files_and_folders_is_taken(place: Place, data: bytes) -> None:
    refused(place, data)


@pytest.mark.parametrize(
    "data",
    [b"<html>not found</html>", b"\0" * 10240, b"PK\3\4" + b"\0" * 100, b"\x1f\x8b" + b"x" * 99,
     tar(MODEL, ("b", b"x" * 5000))[:3000], zipped(MODEL)[:-10], zipped(MODEL) + b"more",
     tar(MODEL) + tar(MODEL)],
    ids=["page", "zeros", "zip head", "gzip head", "cut tar", "cut zip", "more zip", "two tars"],
)  # fmt: skip
def test_what_is_no_whole_archive_is_refused(place: Place, data: bytes) -> None:
    refused(place, data)


def refused(place: Place, data: bytes) -> ModelcloudError:
    """Send and register it; it is refused in words that tell nothing of the server."""
    archive = place.root.parent / "archive"
    archive.write_bytes(data)
    upload = place.ann.upload(archive)["upload"]
    archive.unlink()
    with pytest.raises(ModelcloudError) as caught:
        place.ann.register("evil", group="ann", upload=upload)
    assert caught.value.status in {400, 413, 415}
    assert upload not in [one["upload"] for one in place.ann.uploads()], "it is left behind"
    assert str(place.up.data) not in caught.value.message
    assert "Traceback" not in caught.value.message
    return caught.value


# ---- row 27: what expands


def zeros(size: int) -> tuple[bytes, bytes]:
    """A raw deflate stream of so many zeros: all of them, and the end."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    one = deflater.compress(bytes(MIB)) + deflater.flush(zlib.Z_FULL_FLUSH)
    return one * (size // MIB), deflater.flush()


def head_of_ten() -> bytes:
    head = tarfile.TarInfo("model.py")
    head.size = 10 * GIB
    return head.tobuf()


def bomb_in_bzip2() -> bytes:
    return bz2.compress(head_of_ten()) + bz2.compress(bytes(100 * MIB)) * 103


def bomb_in_gzip() -> bytes:
    deflater = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    start = deflater.compress(head_of_ten()) + deflater.flush(zlib.Z_FULL_FLUSH)
    return start + zeros(10 * GIB)[0]


def bomb_in_zip(said: int) -> bytes:
    """10 GiB in one member, which says that it has `said`."""
    name, data = b"model.py", b"".join(zeros(10 * GIB))
    of_both = (0, 8, 0, 0, 0, len(data), said, len(name), 0)
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 20, *of_both) + name
    more = (0, 0, 0, 0, 0)
    central = struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, *of_both, *more) + name
    offset = len(local) + len(data)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(central), offset, 0)
    return local + data + central + end


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (bomb_in_bzip2, "more than"),
        (bomb_in_gzip, "more than"),
        (lambda: bomb_in_zip(0xFFFFFFFE), "more than"),
        (lambda: bomb_in_zip(100), "does not match its size"),
    ],
    ids=["bzip2", "gzip", "zip", "zip that lies"],
)
def test_ten_gigabytes_of_zeros_are_refused_and_never_written(
    place: Place, made: Callable[[], bytes], words: str
) -> None:
    began = time.monotonic()
    assert words in refused(place, made()).message
    assert time.monotonic() - began < 60


def million_in_tar() -> bytes:
    names = b"".join(tarfile.TarInfo(f"{number:07}").tobuf() for number in range(25_000))
    deflater = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    piece = deflater.compress(names) + deflater.flush(zlib.Z_FULL_FLUSH)
    return piece * 40  # the end is cut off: nobody gets there


def million_in_zip() -> bytes:
    """As its list says, which is not there."""
    end64 = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 10**6, 10**6, 0, 30)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, 30, 1)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return b"PK\3\4" + bytes(26) + end64 + locator + end


@pytest.mark.parametrize("made", [million_in_tar, million_in_zip])
def test_a_million_entries_are_refused(place: Place, made: Callable[[], bytes]) -> None:
    assert isinstance(refused(place, made()), TooLarge)


# ---- rows 33 and 40: how it is sent


def api(place: Place) -> int:
    return httpx.URL(place.up.api).port or 0


def send(place: Place, *headers: str, body: bytes = b"", path: str = "/api/v1/uploads") -> Answer:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", bearer(place.ann.token), *headers]
    return ask(api(place), "\r\n".join(lines).encode() + b"\r\n\r\n" + body)


def test_more_than_the_limit_is_refused_whatever_was_said_of_it(place: Place) -> None:
    assert send(place, f"Content-Length: {LIMIT + 1}").status == 413
    assert send(place, f"Content-Length: {10**18}").status == 413
    with connect(api(place)) as raw:
        raw.send(b"POST /api/v1/uploads HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked"
                 b"\r\n" + bearer(place.ann.token).encode() + b"\r\n\r\n")  # fmt: skip
        chunk = b"100000\r\n" + bytes(MIB) + b"\r\n"
        try:
            for _ in range(LIMIT // MIB + 8):
                raw.send(chunk)
        except ConnectionError:
            return  # it hung up, as it may
        assert raw.read().status == 413


@pytest.mark.parametrize("how", ["closed", "short", "nothing", "no token"])
def test_an_upload_that_is_broken_off_leaves_nothing(place: Place, how: str) -> None:
    headers = ["Host: localhost", "Content-Length: 3000000"]
    if how == "nothing":
        assert send(place, "Content-Length: 0").status == 400
        return
    if how != "no token":
        headers.append(bearer(place.ann.token))
    with connect(api(place)) as raw:
        request = "\r\n".join(["POST /api/v1/uploads HTTP/1.1", *headers])
        raw.send(request.encode() + b"\r\n\r\n" + bytes(2 * MIB))
        if how == "no token":
            assert raw.read().status == 401
        elif how == "closed":
            wait_for("it is being written", lambda: left_in(place.up.data)["staging"])
        else:
            raw.socket.shutdown(1)


@pytest.mark.parametrize(
    "headers",
    [
        ('Content-Disposition: attachment; filename="../../evil"',),
        ("Content-Type: application/octet-stream; name=../../evil", "X-Filename: /tmp/evil"),
    ],
)
def test_what_a_client_calls_its_file_is_of_no_consequence(
    place: Place, headers: tuple[str, ...]
) -> None:
    body = tar(MODEL)
    named = send(place, f"Content-Length: {len(body)}", *headers, body=body,
                 path="/api/v1/uploads?filename=../evil&path=/tmp/evil")  # fmt: skip
    assert named.status == 400
    assert left_in(place.up.data)["staging"] == []
    answer = send(place, f"Content-Length: {len(body)}", *headers, body=body)
    assert answer.status == 201
    (name,) = left_in(place.up.data)["staging"]
    assert name == f"upload-{answer.json()['upload']}"
    assert not list(place.root.parent.rglob("*evil*"))
    place.ann.delete_upload(answer.json()["upload"])


@pytest.mark.parametrize(
    "kind", ["multipart/form-data; boundary=x", "application/zip", "text/plain", "application/json"]
)
def test_a_form_is_no_upload(place: Place, kind: str) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="f"; filename="../x"\r\n\r\nx\r\n--x--\r\n'
    answer = send(place, f"Content-Type: {kind}", f"Content-Length: {len(body)}", body=body)
    assert answer.status == 415


def test_an_upload_is_its_senders_alone(place: Place) -> None:
    archive = place.root.parent / "archive.tar"
    archive.write_bytes(tar(MODEL))
    upload = place.ann.upload(archive)["upload"]
    archive.unlink()
    for other in (place.bob, place.up.admin):
        with pytest.raises(ModelcloudError) as caught:
            other.register("theirs", group=other.whoami()["user"], upload=upload)
        assert caught.value.status == 404
        with pytest.raises(ModelcloudError) as caught:
            other.delete_upload(upload)
        assert caught.value.status == 404
    place.ann.delete_upload(upload)


@pytest.mark.parametrize(
    "name", ["../upload-x", "..", "/etc/passwd", "..%2f..%2fmodelcloud.db", "x\0y", "", "." * 300]
)
def test_the_name_of_an_upload_leads_nowhere(place: Place, name: str) -> None:
    with pytest.raises(ModelcloudError) as caught:
        place.ann.register("evil", group="ann", upload=name)
    assert caught.value.status in {400, 404}
    for path in (name, quote(name, safe="")):
        answer = ask(api(place), get(f"/api/v1/uploads/{path}".replace("\0", "%00"),
                                     bearer(place.ann.token), method="DELETE"))  # fmt: skip
        assert answer.status in {400, 404, 405}
    assert (place.up.data / "modelcloud.db").exists()


# ---- row 26, and paths on the server


@pytest.fixture
def around(place: Place) -> Iterator[Path]:
    """Models beside the root, with links to them in it."""
    beside = place.root.parent / "models-evil"
    inside = place.root / "inside"
    for folder in (beside, inside):
        folder.mkdir()
        (folder / "model.py").write_text(ECHO)
    links = {"folder": beside, "file.py": beside / "model.py", "passwd": Path("/etc/passwd")}
    for name, target in links.items():
        (place.root / name).symlink_to(target)
    (inside / "data").symlink_to("/etc/passwd")
    yield beside
    for name in links:
        (place.root / name).unlink()
    for folder in (beside, inside):
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()


PLACES = [
    "{root}-evil", "{root}/../models-evil", "{root}/folder", "{root}/folder/model.py",
    "{root}/file.py", "{root}/passwd", "{root}/inside", "{root}/inside/data", "/etc/passwd", "/",
    "{data}", "{data}/modelcloud.db", "{data}/artifacts", "models", "./models", "~", "{root}\0",
    "{root}/./../models-evil/model.py", "file://{root}", "//{root}/../models-evil", "/proc/self",
    "/proc/self/environ", "/dev/zero", "{root}/nothing",
]  # fmt: skip


@pytest.mark.usefixtures("around")
@pytest.mark.parametrize("path", PLACES)
def test_nothing_beyond_the_roots_is_registered(place: Place, path: str) -> None:
    named = path.format(root=place.root, data=place.up.data)
    with pytest.raises(ModelcloudError) as caught:
        place.ann.register("evil", group="ann", path=named)
    assert caught.value.status in {400, 404}, caught.value.message
    assert "root:" not in caught.value.message
    exists = ask(api(place), post("/api/v1/services/evil/versions", {"group": "ann", "path": "/x"},
                                  bearer(place.ann.token)))  # fmt: skip
    assert exists.status == 400


@pytest.mark.parametrize(
    "main",
    ["../models-evil/model.py", "/etc/passwd", "echo/../../models-evil/model.py", "echo/model.py:",
     "echo/model.py:os.system", "echo/model.py:predict\n", "echo/\0.py", "echo\\model.py", "..",
     "echo/manifest.json", "x" * 900],
    ids=ascii,
)  # fmt: skip
def test_a_main_file_lies_among_the_files(place: Place, main: str) -> None:
    with pytest.raises(ModelcloudError) as caught:
        place.ann.register("evil", group="ann", path=str(place.root), main=main)
    assert caught.value.status in {400, 413}


@pytest.mark.parametrize(
    "line", ["-r /etc/passwd", "-c /etc/passwd", "a @ file:///etc/passwd", "a @ /etc", "-e .",
             "--index-url /etc", "../x", "a.whl", "https://example.org/${HOME}"]
)  # fmt: skip
def test_requirements_read_no_file_of_the_server(place: Place, line: str) -> None:
    with pytest.raises(ModelcloudError) as caught:
        place.ann.register("evil", group="ann", path=str(place.root / "echo"), requirements=line)
    assert "accepted: names" in caught.value.message
    assert "root:" not in caught.value.message


# ---- code of packages that runs when they are built


BACKEND = """
import os, sys
found = []
for path in {paths!r}:
    for how in ("r", "a"):
        try:
            open(path, how)
            found.append(path)
        except OSError:
            pass
try:
    os.kill({node}, 0)
    found.append("node")
except OSError:
    pass
raise SystemExit("reached: " + repr(found))
"""


@contextmanager
def serving(name: str, data: bytes) -> Iterator[str]:
    """An HTTP server with one file."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == f"/{name}" else 404)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/{name}"
        server.shutdown()
        thread.join()


@pytest.mark.skipif(version() < LEAST_VERSION, reason="this kernel has no Landlock")
def test_what_runs_when_a_package_is_built_reaches_no_more_than_a_model(place: Place) -> None:
    data = place.up.data
    paths = [data / "modelcloud.db", data / "lock", data / "logs" / "node.log"]
    code = BACKEND.format(paths=[str(path) for path in paths], node=place.up.process.pid)
    project = b'[build-system]\nrequires = []\nbuild-backend = "evil"\nbackend-path = ["."]\n'
    source = tar(("evil-1.0/pyproject.toml", project), ("evil-1.0/evil.py", code.encode()))
    with (
        serving("evil-1.0.tar.gz", zlib_gzip(source)) as url,
        pytest.raises(ModelcloudError) as caught,
    ):
        place.ann.register(
            "evil", group="ann", path=str(place.root / "echo"), requirements=f"evil @ {url}"
        )
    assert "reached: []" in caught.value.message, caught.value.message


def zlib_gzip(data: bytes) -> bytes:
    deflater = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return deflater.compress(data) + deflater.flush()


# ---- names


EVIL_NAMES = ["..", ".", "../x", "a/b", "a\\b", "a\0b", "a\nb", "a b", "-a", "", "x" * 64, "é",
              "a%2fb", "<img src=x onerror=alert(1)>", "CON:", "a;b", "$(id)",
              "\u202ex"]  # fmt: skip


@pytest.mark.parametrize("name", EVIL_NAMES, ids=ascii)
def test_no_object_gets_a_name_that_is_a_path_or_markup(place: Place, name: str) -> None:
    token = place.up.admin.token
    bodies = {
        "/groups": {"name": name},
        "/users": {"name": name, "password": "correct horse battery"},
        "/instance-types": {"name": name, "cpu": 1, "memory": MIB},
        "/services": {"name": name, "group": "admin"},
    }
    for path, body in bodies.items():
        answer = ask(api(place), post(f"/api/v1{path}", body, bearer(token)))
        assert answer.status == 400, (path, answer)
        assert answer.headers["content-type"] == "application/problem+json"
    body = {"weights": {"1": 1}, "labels": {name: 1}}
    request = post("/api/v1/services/echo/traffic", body, bearer(token))
    assert ask(api(place), request.replace(b"POST", b"PUT", 1)).status == 400
    for path in (f"{quote(name, safe='')}/logs", f"echo/logs?after={quote(name)}",
                 f"echo/versions/1/logs?before={quote(name)}", f"{quote(name, safe='')}/versions",
                 f"echo/deployments/{quote(name, safe='')}/x"):  # fmt: skip
        answer = ask(api(place), get(f"/api/v1/services/{path}", bearer(token)))
        assert answer.status in {400, 404, 405}, (path, answer)
        assert b"/tmp/" not in answer.body
    logs = {entry.name for entry in (place.up.data / "logs" / "services").iterdir()}
    assert logs <= {"echo", "probe"}


def test_nobody_registers_where_they_may_not(place: Place) -> None:
    """A name that is taken says so, as names are unique on the instance; nothing else shows."""
    for service, group in (("evil", "ann"), ("echo", "bob"), ("echo", None), ("evil", "nowhere")):
        with pytest.raises(ModelcloudError) as caught:
            place.bob.register(service, group=group, path=str(place.root / "echo"))
        assert caught.value.status == (409 if service == "echo" else 404)


@pytest.mark.slow
def test_an_upload_that_stands_still_is_ended(place: Place) -> None:
    """Thirty seconds, as the API says."""
    with connect(api(place)) as raw:
        raw.socket.settimeout(90)
        raw.send(b"POST /api/v1/uploads HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n"
                 + bearer(place.ann.token).encode() + b"\r\n\r\nx")  # fmt: skip
        assert raw.read().status == 408
