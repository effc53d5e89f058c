"""Monitors of a really started platform, on real servers: models arrive, and become versions."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from modelcloud.platform import Platform
from support import ftp_server, s3_server, sftp_server
from support.load import failures, load
from support.monitored import Place
from support.onnx_model import STEP, write_model
from support.places import Remote, remote
from support.served_folders import running
from support.server import wait_for
from support.up import Up, up
from support.web_server import web_folder

pytestmark = pytest.mark.xdist_group("platform-monitors")

ARCHIVE, DONE = "uci_housing.tar.gz", "donefile"
SECRETS = (ftp_server.PASSWORD, s3_server.SECRET, sftp_server.PASSWORD)
ASKS = {"inputs": {"x": [1.0]}}
CODE = "def predict(x: float) -> float:\n    return x\n"


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """Its workers need no more than there is; it may reach this machine by one address."""
    folder = tmp_path_factory.mktemp("platform")
    (folder / "roots").mkdir()
    with up(
        folder / "data", "--allow-network", "127.0.0.1/32", "--root", folder / "roots"
    ) as started:
        yield started


def packed(folder: Path, number: int) -> bytes:
    """A model that answers with a multiple of its number, as `tar` packs its folder."""
    write_model(folder / f"model-{number}", number)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        tar.add(folder / f"model-{number}", arcname="uci_housing_model")
    return out.getvalue()


def produce(place: Place, archive: bytes, done: str) -> None:
    place.put(ARCHIVE, archive)
    place.put(DONE, done.encode())


def watch(platform: Up, service: str, source: dict[str, Any], **fields: Any) -> None:
    """A service with one monitor, `daily`."""
    platform.admin.create_service(service, "admin")
    platform.admin.create_monitor(
        service,
        "daily",
        **{
            "remote_model_name": ARCHIVE,
            "remote_donefile_name": DONE,
            "interval": 1.0,
            "deploy": {"instance_type": "unlimited"},
            **source,
            **fields,
        },
    )


def fields_of(there: Remote) -> dict[str, Any]:
    """Arguments of `modelcloud monitor` in the words of the API."""
    flags = dict(zip(there.source[::2], there.source[1::2], strict=True))
    found: dict[str, Any] = {}
    for flag, value in flags.items():
        name = flag.removeprefix("--")
        if name == "storage_option":
            option, _, text = value.partition("=")
            found["storage_options"] = {option: text}
        elif name == "storage_options_file":
            options = json.loads(Path(value).read_text())
            found["known_hosts"] = Path(options["known_hosts"]).read_text()
            found["secret_options"] = {"password": options["password"]}
        else:
            found[name] = int(value) if name == "ftp_port" else value
    if "MODELCLOUD_FTP_PASSWORD" in there.env:
        found["ftp_password"] = there.env["MODELCLOUD_FTP_PASSWORD"]
    if "AWS_ACCESS_KEY_ID" in there.env:
        key, secret = there.env["AWS_ACCESS_KEY_ID"], there.env["AWS_SECRET_ACCESS_KEY"]
        found["secret_options"] = {"key": key, "secret": secret}
    return found


def answers(platform: Up, service: str, number: int) -> bool:
    answer = platform.predict(service, ASKS)
    return answer.status_code == 200 and answer.json()["data"]["outputs"]["y"] == [STEP * number]


def wait_for_model(platform: Up, service: str, number: int) -> None:
    try:
        wait_for(f"model {number} answers", lambda: answers(platform, service, number), 60)
    except AssertionError:
        told = (
            platform.admin.monitor(service, "daily"),
            platform.admin.monitor_events(service, "daily"),
        )
        raise AssertionError(f"{told}\n{platform.output}") from None


def wait_for_event(platform: Up, service: str, **fields: Any) -> dict[str, Any]:
    """The newest event that has these fields."""

    def there() -> dict[str, Any] | None:
        events = platform.admin.monitor_events(service, "daily")
        return next((e for e in events if fields.items() <= e.items()), None)

    found = wait_for(f"an event with {fields}", there, 60)
    assert found is not None
    return found


@pytest.mark.parametrize("kind", ["general", "ftp", "sftp", "s3"])
def test_every_model_that_arrives_becomes_a_version_and_takes_the_place_of_the_last(
    platform: Up, kind: str, tmp_path: Path
) -> None:
    service = f"by-{kind}"
    with remote(kind, tmp_path) as there:
        tested = platform.admin.test_monitor
        watch(platform, service, fields_of(there))
        assert "no done-file" in tested(service, "daily")["error"]
        for number in (1, 2):
            produce(there.place, packed(tmp_path, number), str(number))
            wait_for_model(platform, service, number)
        found = tested(service, "daily")
        assert found["ok"], found
        assert found["model"]["size"] == len(packed(tmp_path, 2)) or found["model"]["size"] > 0
    record = wait_for(
        "the second is said to serve",
        lambda: (r := platform.admin.monitor(service, "daily"))["deployment"] == 2 and r,
    )
    assert record["version"] == 2
    origin = platform.admin.version(service, 2)["origin"]
    assert (origin["kind"], origin["monitor"], origin["name"]) == ("monitor", "daily", ARCHIVE)
    assert len(origin["sha256"]) == 64
    assert origin["place"] == record["place"]
    (deployment,) = platform.admin.deployments(service)
    assert deployment["answers"] == [1, 2], "one deployment, live updated"
    first = wait_for_event(platform, service, version=1)
    assert (first["outcome"], first["rollout_state"]) == ("registered", "succeeded")
    assert platform.admin.audit(kind="version", name=f"{service}/2")[0]["peer"] == "monitor daily"


def test_no_credential_of_a_monitor_shows_anywhere(platform: Up, tmp_path: Path) -> None:
    """Each is used first: the source says that there is no done-file, and not that it is closed."""
    services = [f"secret-{kind}" for kind in ("ftp", "sftp", "s3")]
    with contextlib.ExitStack() as stack:
        for service in services:
            (tmp_path / service).mkdir()
            kind = service.removeprefix("secret-")
            there = stack.enter_context(remote(kind, tmp_path / service))
            watch(platform, service, fields_of(there))
        for service in services:
            assert "no done-file" in wait_for_event(platform, service, outcome="failed")["detail"]
            assert platform.admin.monitor(service, "daily")["secrets"]
        check_hidden(platform, services)


def check_hidden(platform: Up, services: list[str]) -> None:
    """No secret shows to whoever reads answers, processes or files."""
    shown = [platform.output, json.dumps(platform.admin.audit(limit=500))]
    shown += [json.dumps(platform.admin.monitors(service)) for service in services]
    shown += [json.dumps(platform.admin.monitor_events(s, "daily")) for s in services]
    for pid in [platform.process.pid, *platform.children()]:
        with contextlib.suppress(OSError):
            shown.append(Path(f"/proc/{pid}/cmdline").read_text("latin-1"))
            shown.append(Path(f"/proc/{pid}/environ").read_text("latin-1"))
    for file in platform.data.rglob("*"):
        if file.is_file():
            shown.append(file.read_bytes().decode("latin-1"))
    for secret in SECRETS:
        assert not [text[:200] for text in shown if secret in text]


def test_a_broken_model_and_one_that_fails_its_golden_request_leave_the_old_one_serving(
    platform: Up, tmp_path: Path
) -> None:
    golden = [{"command": "predict", "inputs": {"inputs": {"x": [0.0]}},
               "expected": {"outputs": {"y": [1000.0]}}}]  # fmt: skip
    with remote("general", tmp_path) as there:
        watch(platform, "guarded", fields_of(there), golden=golden)
        produce(there.place, packed(tmp_path, 1), "1")
        wait_for_model(platform, "guarded", 1)
        produce(there.place, packed(tmp_path, 1)[:-20], "cut")
        told = wait_for_event(platform, "guarded", outcome="failed")
        assert told["version"] is None
        assert platform.admin.monitor("guarded", "daily")["error"] == told["detail"]
        produce(there.place, packed(tmp_path, 2), "2")
        failed = wait_for_event(platform, "guarded", version=2, rollout_state="failed")
        assert "golden" in failed["detail"]
        assert answers(platform, "guarded", 1)
        assert platform.admin.monitor("guarded", "daily")["error"] == ""


def test_the_same_files_again_are_no_new_version(platform: Up, tmp_path: Path) -> None:
    with remote("general", tmp_path) as there:
        watch(platform, "again", fields_of(there))
        produce(there.place, packed(tmp_path, 1), "1")
        wait_for_model(platform, "again", 1)
        produce(there.place, packed(tmp_path, 1), "1, once more")
        assert wait_for_event(platform, "again", outcome="unchanged")["version"] == 1
        assert [v["version"] for v in platform.admin.versions("again")] == [1]


def test_code_is_accepted_only_from_a_place_that_is_trusted_by_its_name(
    platform: Up, tmp_path: Path
) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        member = tarfile.TarInfo("m/model.py")
        member.size = len(CODE)
        tar.addfile(member, io.BytesIO(CODE.encode()))
    with remote("general", tmp_path) as there:
        watch(platform, "coded", fields_of(there))
        produce(there.place, out.getvalue(), "1")
        told = wait_for_event(platform, "coded", outcome="failed")
        wait_for(
            "it says so",
            lambda: "Python code" in platform.admin.monitor("coded", "daily")["error"],
        )
        assert platform.admin.versions("coded") == []
        place = platform.admin.monitor("coded", "daily")["place"]
        assert told["outcome"] == "failed"
        platform.admin.edit_monitor("coded", "daily", trust=place)
        wait_for(
            "it is accepted",
            lambda: platform.predict("coded", {"x": 2}).json().get("data") == {"result": 2},
            60,
        )


def test_the_newest_versions_stay_and_older_ones_go(platform: Up, tmp_path: Path) -> None:
    with remote("general", tmp_path) as there:
        watch(platform, "kept", fields_of(there), keep=2)
        for number in (1, 2, 3, 4):
            produce(there.place, packed(tmp_path, number), str(number))
            wait_for_model(platform, "kept", number)
        wait_for(
            "two are left",
            lambda: [v["version"] for v in platform.admin.versions("kept")] == [4, 3],
            60,
        )
        rolled = platform.admin.rollback("kept", 4)
        assert platform.admin.wait(rolled["rollout"]["id"])["state"] == "succeeded"
        assert answers(platform, "kept", 3), "the one that a rollback leads to was spared"


def test_what_somebody_took_offline_is_not_brought_back(platform: Up, tmp_path: Path) -> None:
    with remote("general", tmp_path) as there:
        watch(platform, "rested", fields_of(there))
        produce(there.place, packed(tmp_path, 1), "1")
        wait_for_model(platform, "rested", 1)
        platform.admin.stop("rested", 1)
        produce(there.place, packed(tmp_path, 2), "2")
        event = wait_for(
            "it says why",
            lambda: (e := wait_for_event(platform, "rested", version=2))["detail"] and e,
        )
        assert "is offline" in event["detail"]
        assert event["rollout"] is None
        assert platform.predict("rested", ASKS).status_code != 200


def test_a_paused_monitor_rests_and_one_that_is_told_to_looks_at_once(
    platform: Up, tmp_path: Path
) -> None:
    with remote("general", tmp_path) as there:
        watch(platform, "patient", fields_of(there), interval=3600.0, paused=True)
        produce(there.place, packed(tmp_path, 1), "1")
        assert platform.admin.monitor("patient", "daily")["activity"] == "paused"
        platform.admin.resume_monitor("patient", "daily")
        wait_for_model(platform, "patient", 1)
        wait_for(
            "it waits for an hour",
            lambda: platform.admin.monitor("patient", "daily")["activity"] == "waiting",
        )
        produce(there.place, packed(tmp_path, 2), "2")
        platform.admin.run_monitor("patient", "daily")
        wait_for_model(platform, "patient", 2)
        platform.admin.delete_monitor("patient", "daily")
        assert answers(platform, "patient", 2), "what it brought stays"


@contextlib.contextmanager
def listener(address: str) -> Iterator[tuple[int, list[bytes]]]:
    """A place that nobody may reach: its port, and what reached it."""
    hits: list[bytes] = []
    with socket.create_server((address, 0)) as server:
        server.settimeout(0.1)
        ending = threading.Event()

        def accept() -> None:
            while not ending.is_set():
                with contextlib.suppress(TimeoutError):
                    reached, _ = server.accept()
                    with reached:
                        hits.append(reached.recv(1000))

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield server.getsockname()[1], hits
        finally:
            ending.set()
            thread.join()


@pytest.mark.parametrize("way", ["direct", "name", "redirect"])
def test_a_private_address_that_is_not_allowed_is_never_connected_to(
    platform: Up, way: str, tmp_path: Path
) -> None:
    """Rows 16 to 19 of the table of attacks; 127.0.0.1 alone is allowed here."""
    platform.admin.create_service(f"private-{way}", "admin")
    with listener("127.0.0.2") as (port, hits):
        (tmp_path / "remote").mkdir()
        there = f"return 302 http://127.0.0.2:{port}$request_uri;" if way == "redirect" else ""
        with running(web_folder(tmp_path / "remote", there)) as web:
            host = {
                "direct": f"http://127.0.0.2:{port}",
                "name": f"http://[::ffff:127.0.0.2]:{port}",
                "redirect": f"http://127.0.0.1:{web.port}",
            }[way]
            tested = platform.admin.test_monitor(
                f"private-{way}", type="general", general_host=host, remote_path="/",
                remote_model_name=ARCHIVE, remote_donefile_name=DONE,
                deploy={"instance_type": "unlimited"},
            )  # fmt: skip
        assert tested["ok"] is False
        assert "not public" in tested["error"] or "cannot be reached" in tested["error"], tested
        assert hits == []


def test_a_user_who_may_not_any_more_ends_what_acts_in_their_name(
    platform: Up, tmp_path: Path
) -> None:
    with remote("general", tmp_path) as there, platform.user("leaver") as leaver:
        platform.admin.create_service("left", "admin")
        platform.admin.share("admin", "leaver", "modify")
        _watch_as(leaver, "left", fields_of(there))
        produce(there.place, packed(tmp_path, 1), "1")
        wait_for_model(platform, "left", 1)
        platform.admin.unshare("admin", "leaver")
        produce(there.place, packed(tmp_path, 2), "2")
        wait_for(
            "it says so",
            lambda: "level modify" in platform.admin.monitor("left", "daily")["error"],
        )
        assert answers(platform, "left", 1)
        assert len(platform.admin.versions("left")) == 1


def _watch_as(user: Platform, service: str, source: dict[str, Any]) -> None:
    user.create_monitor(
        service, "daily", remote_model_name=ARCHIVE, remote_donefile_name=DONE, interval=1.0,
        deploy={"instance_type": "unlimited"}, **source,
    )  # fmt: skip


def test_a_control_plane_killed_at_any_moment_registers_and_deploys_each_model_once(
    platform: Up, tmp_path: Path
) -> None:
    """Killed at other moments of an arrival each time, under load, with no request failed."""
    with remote("general", tmp_path) as there:
        watch(platform, "mortal", fields_of(there))
        produce(there.place, packed(tmp_path, 1), "1")
        wait_for_model(platform, "mortal", 1)
        with load(platform.port, "/predict/mortal", ASKS, rate=20) as asking:
            for number, moment in enumerate(
                ("looking", "pulling", "registering", "rolling out"), 2
            ):
                produce(there.place, packed(tmp_path, number), str(number))
                _kill_when(platform, "mortal", moment)
                wait_for_model(platform, "mortal", number)
        assert failures(asking.samples) == []
    numbers = [v["version"] for v in platform.admin.versions("mortal")]
    assert numbers == [5, 4, 3, 2, 1]
    rollouts = platform.admin.rollouts(service="mortal", state="succeeded")
    assert [rollout["to"]["version"] for rollout in rollouts] == numbers


def _kill_when(platform: Up, service: str, moment: str) -> None:
    """Kill the control plane once the monitor is at this, or past it."""

    def there() -> bool:
        record = platform.admin.monitor(service, "daily")
        return bool(record["activity"] == moment or record["version"] != record["deployment"])

    wait_for(moment, there, 30)
    before = platform.pids("control")
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    wait_for("another control plane answers", lambda: _answers_again(platform, before), 60)


def _answers_again(platform: Up, before: list[int]) -> bool:
    if platform.pids("control") in ([], before):
        return False
    with contextlib.suppress(httpx.TransportError):
        ready: bool = platform.client.get(f"{platform.api}/readyz").status_code == 200
        return ready
    return False
