"""Workspaces of a real platform: who gets in, what they reach, and that nothing of them is left."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from modelcloud import errors
from support.lab import Workspace
from support.processes import family
from support.server import wait_for
from support.up import PASSWORD, Up, start_up, up

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

pytestmark = [pytest.mark.xdist_group("workspace"), pytest.mark.timeout(400)]

FORK = """
import os, subprocess, sys
child = "import os, time; print(os.getpid(), flush=True); time.sleep(1000)"
command = [sys.executable, "-c", child]
environment = {"PATH": os.environ["PATH"]}
away = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True, env=environment)
print(os.getpid(), int(away.stdout.readline()))
"""


def alive(pids: list[int]) -> list[int]:
    """Those that run, of processes that were started a while ago."""

    def state(pid: int) -> str:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
        except OSError:
            return ""

    return [pid for pid in pids if state(pid) not in {"", "Z"}]


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A platform with room for two workspaces; ada, ben and cleo share the group `lab`."""
    data = tmp_path_factory.mktemp("workspaces") / "data"
    with up(data, "--workspaces", "2", "--workspace-port", "0", UNTOLD="a secret") as running:
        admin = running.admin
        admin.create_group("lab")
        for user, level in (("ada", "modify"), ("ben", "read"), ("cleo", "manage")):
            admin.create_user(user, PASSWORD)
            admin.share("lab", user, level)
        yield running


@pytest.fixture
def ada(platform: Up) -> Iterator[Workspace]:
    """Her workspace, in which nothing runs that another test started."""
    with platform.sign_in("ada") as own:
        own.start_workspace("lab")
        with Workspace(own, "lab") as workspace:
            yield workspace


def hear_until_closed(socket: ClientConnection) -> None:
    while True:
        socket.recv(timeout=30)


def refusal(workspace: Workspace, kernel: str, **headers: str) -> int:
    """The status by which a websocket is refused."""
    with pytest.raises(InvalidStatus) as refused, workspace.socket(kernel, **headers):
        pass
    return refused.value.response.status_code


def test_who_may_modify_the_group_has_one_and_others_do_not(platform: Up, ada: Workspace) -> None:
    with platform.sign_in("ada") as own, platform.sign_in("ben") as ben:
        (record,) = own.workspaces()
        assert (record["user"], record["group"], record["state"]) == ("ada", "lab", "running")
        assert ada.get("lab").status_code == 200
        assert own.start_workspace("lab")["started_at"] == record["started_at"], "it is there"
        with pytest.raises(errors.Conflict, match="runs in group 'lab'"):
            own.start_workspace("ada")
        with pytest.raises(errors.Forbidden, match="the level modify"):
            ben.start_workspace("lab")
        with pytest.raises(errors.Forbidden, match="the level modify"):
            ben.workspace_folders("lab")
        assert ben.workspaces() == []
        with pytest.raises(errors.Forbidden, match="the level manage"):
            ben.stop_workspace("lab", "ada")
    with platform.sign_in("cleo") as cleo:
        assert [one["user"] for one in cleo.workspaces()] == ["ada"]
        with pytest.raises(errors.NotFound, match="no workspace of yours"):
            cleo.open_workspace("lab")  # to see and to stop is not to open


def test_nobody_else_gets_in(platform: Up, ada: Workspace) -> None:
    kernel = ada.kernel()
    with httpx.Client(base_url=ada.origin) as nobody:
        for path in ("lab", "api/contents", "api/kernels"):
            answer = nobody.get(ada.base + path)
            assert (answer.status_code, "page Workspace" in answer.text) == (401, True), path
        assert nobody.get(ada.entrance).status_code == 401, "a ticket is for once"
        assert nobody.get("/").status_code == 404
        assert nobody.get("/w/unknown/lab").status_code == 404
    with platform.sign_in("cleo") as cleo:
        cleo.start_workspace("lab")
        with Workspace(cleo, "lab") as other:
            assert other.base != ada.base
            stolen = {"cookie": other.cookie}
            assert httpx.get(ada.origin + ada.base + "lab", headers=stolen).status_code == 401
            assert refusal(ada, kernel, cookie=other.cookie) == 403
        session = {"cookie": f"modelcloud_session={cleo.token}"}
        assert httpx.get(ada.origin + ada.base + "lab", headers=session).status_code == 401
        cleo.stop_workspace("lab")
    assert refusal(ada, kernel, cookie="") == 403


def test_pages_of_other_origins_open_and_send_nothing(platform: Up, ada: Workspace) -> None:
    kernel = ada.kernel()
    assert "ok" in ada.run("print('ok')", kernel)
    for origin in ("http://evil.example", platform.api, ada.origin.replace("127.0.0.1", "x"), ""):
        assert refusal(ada, kernel, origin=origin) == 403, origin
    for marks in ({"sec-fetch-site": "same-site"}, {"sec-fetch-site": "cross-site"},
                  {"origin": platform.api}, {"host": "rebound.example"}):  # fmt: skip
        answer = ada.http.post(f"{ada.base}api/kernels", json={}, headers=marks)
        assert answer.status_code == 403, marks
        assert ada.get("api/contents", **marks).status_code == 403, marks
    # a link leads there, from the dashboard
    assert ada.get(
        "lab", **{"sec-fetch-site": "same-site", "sec-fetch-mode": "navigate"}
    ).is_success
    # and what the workspace's page would send the dashboard is refused there
    with platform.sign_in("ada") as own:
        marks = {"cookie": f"modelcloud_session={own.token}", "origin": ada.origin,
                 "sec-fetch-site": "same-site"}  # fmt: skip
        assert httpx.post(f"{platform.api}/sign-out", headers=marks).status_code == 403
        assert httpx.get(f"{platform.api}/services", headers={"cookie": marks["cookie"]}).is_success


def test_what_runs_in_it_reaches_the_groups_files_and_not_the_platforms(
    platform: Up, ada: Workspace
) -> None:
    kernel = ada.kernel()
    assert "tutorial.ipynb" in ada.run("import os; print(os.listdir())", kernel)
    ada.run("open('kept.txt', 'w').write('by ada')", kernel)
    (kept,) = (platform.data / "workspaces").glob("*/kept.txt")
    assert kept.read_text() == "by ada"
    environment = ada.run("import os; print(dict(os.environ))", kernel)
    assert "a secret" not in environment
    with platform.sign_in("ada") as own:
        assert str(own.token) not in environment
    store = platform.data / "modelcloud.db"
    (control,) = platform.pids("control")
    for code in (
        f"open({str(store)!r}, 'rb')",
        f"open({str(store)!r}, 'ab')",
        f"open('/proc/{control}/environ', 'rb').read()",
        "import modelcloud; open(modelcloud.__file__, 'a')",
        "import sys, pathlib; pathlib.Path(sys.prefix, 'added').touch()",
        f"import os; os.kill({control}, 9)",
        f"import os; os.symlink({str(store)!r}, 'link'); open('link')",
    ):
        assert "PermissionError" in ada.run(code, kernel), code
    assert platform.pids("control") == [control]


def test_it_inherits_no_socket_of_the_platform(platform: Up, ada: Workspace) -> None:
    def sockets(pid: int) -> set[str]:
        folder = Path(f"/proc/{pid}/fd")
        found = {str(entry.readlink()) for entry in folder.iterdir() if entry.is_symlink()}
        return {one for one in found if one.startswith("socket:")}

    (control,) = platform.pids("control")
    lab = int(ada.run("import os; print(os.getppid())"))
    stat = Path(f"/proc/{lab}/stat").read_text()
    keeper = int(stat.rpartition(") ")[2].split()[1])
    assert b"keeper" in Path(f"/proc/{keeper}/cmdline").read_bytes()
    for pid in (keeper, lab):
        assert not sockets(pid) & sockets(control)


def test_a_folder_is_registered_and_nothing_outside_of_it(platform: Up, ada: Workspace) -> None:
    code = (
        "import os, pathlib\n"
        "for name in ('good', 'leads/out'):\n"
        "    pathlib.Path(name).mkdir(parents=True, exist_ok=True)\n"
        "    pathlib.Path(name, 'model.py').write_text('def f(n: int) -> int:\\n    return n')\n"
        "os.symlink('/etc/hostname', 'leads/out/host')\n"
        "os.symlink('good', 'alias')\n"
    )
    assert ada.run(code) == ""
    with platform.sign_in("ada") as own:
        found = [(one["folder"], one["main"]) for one in own.workspace_folders("lab")]
        assert found == [("good", "model.py"), ("leads/out", "model.py")]
        made = own.register("good", folder="good", group="lab")
        assert (made["version"], made["group"]) == (1, "lab")
        assert made["origin"]["folder"] == "good"
        assert own.register("good", folder="good")["version"] == 2, "of the service's own group"
        for folder in ("..", "../../artifacts", "/etc", "none", "alias", "tutorial.ipynb", ""):
            with pytest.raises(errors.UsageError, match="the group's workspace folder"):
                own.register("good", folder=folder)
        with pytest.raises(errors.UsageError, match="leads out of the folder"):
            own.register("good", folder="leads/out")
        with pytest.raises(errors.UsageError, match="workspace folder"):
            own.register("mine", folder="good", group="ada")
    with platform.sign_in("ben") as ben, pytest.raises(errors.Forbidden):
        ben.register("good", folder="good")


def test_who_signs_out_or_leaves_the_group_is_out(platform: Up, ada: Workspace) -> None:
    kernel = ada.kernel()
    with (
        platform.sign_in("ada") as own,
        Workspace(own, "lab") as second,
        second.socket(kernel) as socket,
    ):
        own.sign_out()
        assert second.get("api/kernels").status_code == 401
        with pytest.raises(ConnectionClosed):
            hear_until_closed(socket)
    assert ada.get("api/kernels").status_code == 200, "another session goes on"
    pids = [int(word) for word in ada.run(FORK, kernel).split()]
    platform.admin.share("lab", "ada", "read")
    try:
        assert ada.get("api/kernels").status_code == 401
        wait_for("its end", lambda: not alive(pids))
        ends = platform.admin.audit(1, action="workspaces.stop", name="ada")
        assert "may not work in the group any more" in ends[0]["detail"]
    finally:
        platform.admin.share("lab", "ada", "modify")


def test_what_was_left_alone_in_it_is_reaped(platform: Up, ada: Workspace) -> None:
    ada.run("import subprocess\nfor _ in range(9):\n    subprocess.run('sleep 0.1 &', shell=True)")
    (keeper,) = (
        pid for pid in family(platform.process.pid)
        if b"workspaces.keeper" in Path(f"/proc/{pid}/cmdline").read_bytes()
    )  # fmt: skip
    wait_for("its orphans to be gone", lambda: len(family(keeper)) == len(alive(family(keeper))))


def test_files_of_the_group_that_break_python_do_not_break_the_lab(
    platform: Up, ada: Workspace
) -> None:
    ada.run("open('token.py', 'w').write('raise SystemExit')")
    ada.run(
        "import os\nos.makedirs('.packages', exist_ok=True)\n"
        "open('.packages/tornado.py', 'w').write('raise SystemExit')"
    )
    with platform.sign_in("ada") as own:
        own.stop_workspace("lab")
        own.start_workspace("lab")
        with Workspace(own, "lab") as again:
            assert again.get("lab").status_code == 200
            for name in ("token.py", ".packages/tornado.py"):
                (group_folder,) = (platform.data / "workspaces").iterdir()
                (group_folder / name).unlink()


def test_a_stop_ends_all_that_was_started_and_is_audited(platform: Up, ada: Workspace) -> None:
    pids = [int(word) for word in ada.run(FORK).split()]
    assert len(alive(pids)) == 2
    with platform.sign_in("cleo") as cleo:
        cleo.stop_workspace("lab", "ada")
        assert alive(pids) == []
        assert cleo.workspaces() == []
    assert ada.get("lab").status_code == 404
    entries = platform.admin.audit(2, kind="workspace", name="ada")
    assert [(one["actor"], one["action"], one["group"]) for one in entries] == [
        ("cleo", "workspaces.stop", "lab"), ("ada", "workspaces.start", "lab"),
    ]  # fmt: skip


def test_a_killed_control_plane_leaves_none_and_the_next_starts_anew(
    platform: Up, ada: Workspace
) -> None:
    pids = [int(word) for word in ada.run(f"open('left', 'w').close(){FORK}").split()]
    platform.kill_control()
    wait_for("the end of all", lambda: not alive(pids))
    wait_for("another control plane", lambda: platform.pids("control"))

    def answers() -> bool:
        try:
            return httpx.get(f"{platform.api}/readyz").is_success
        except httpx.HTTPError:
            return False

    wait_for("its answer", answers)
    with platform.sign_in("ada") as own:
        assert own.workspaces() == []
        own.start_workspace("lab")
        with Workspace(own, "lab") as again:
            assert "left" in again.run("import os; print(os.listdir())")


def test_a_killed_node_leaves_none(tmp_path: Path) -> None:
    platform = start_up(tmp_path / "data", "--workspaces", "1", "--workspace-port", "0")
    try:
        platform.wait_serving()
        platform.admin.start_workspace("admin")
        with Workspace(platform.admin, "admin") as workspace:
            pids = [int(word) for word in workspace.run(FORK).split()]
        assert len(alive(pids)) == 2
    finally:
        os.kill(platform.process.pid, signal.SIGKILL)
        platform.wait()
        platform.client.close()
        platform.admin.close()
    wait_for("the end of all", lambda: not alive(pids))


def test_one_that_is_idle_or_uses_too_much_is_stopped(tmp_path: Path) -> None:
    limits = ("--workspace-idle", "6", "--workspace-memory", "800M")
    with up(tmp_path / "data", "--workspaces", "1", "--workspace-port", "0", *limits) as platform:
        admin = platform.admin
        admin.create_user("ada", PASSWORD)

        def why() -> str:
            (entry,) = admin.audit(1, kind="workspace", name="admin")
            return str(entry["detail"])

        admin.start_workspace("admin")
        full = pytest.raises(errors.TooManyRequests, match="as many as may")
        with platform.sign_in("ada") as ada, full:
            ada.start_workspace("ada")
        with Workspace(admin, "admin") as workspace:
            busy = "import time; time.sleep(20); print('done')"
            assert workspace.run(busy) == "done\n", "what runs is not idle"
        wait_for("the end of the idle one", lambda: not admin.workspaces())
        assert wait_for("the entry", why) == "nothing was done in it for 6 s"
        admin.start_workspace("admin")
        with Workspace(admin, "admin") as workspace:
            kernel = workspace.kernel()
            with pytest.raises((ConnectionClosed, TimeoutError)):
                workspace.run("held = bytearray(1 << 30); import time; time.sleep(60)", kernel)
        wait_for("the end of the large one", lambda: not admin.workspaces())
        assert "bytes of memory" in wait_for("the entry", why)
