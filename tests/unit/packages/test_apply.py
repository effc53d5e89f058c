"""A conf.ini applied to the real control plane, over a node in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from modelcloud.errors import UpdateFailed
from modelcloud.packages import apply, layout
from modelcloud.packages.apply import Applied
from modelcloud.packages.ini import Refused
from modelcloud.packages.plan import Kind
from modelcloud.platform import Platform
from modelcloud.sdk.data_types import any as any_
from support.platform_server import PlatformServer, platform_server

pytestmark = pytest.mark.xdist_group("apply")

CONFIG = {"name": "config", **any_(default=None).to_dict()}


class Display:
    """Follows without a terminal; keeps what was said."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self.lines: list[str] = []

    def said(self, text: str) -> None:
        self.lines.append(text)

    def sent(self, name: str, send: Callable[[Callable[[int, int], None]], Any]) -> Any:
        self.lines.append(f"sending {name}")
        return send(lambda *_: None)

    def followed(self, name: str, rollout_id: int) -> Any:
        rollout = self._platform.wait(rollout_id)
        if rollout["state"] != "succeeded":
            raise UpdateFailed(f"{name}: {rollout['reason']}")
        return rollout


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformServer]:
    with platform_server(tmp_path_factory.mktemp("platform")) as server:

        def offers_config() -> None:
            signature = server.node.engine._signature
            signature["options"] = [CONFIG]
            signature["optionsSchema"] = {"type": "object", "properties": {"config": {}}}
            signature["optionValues"] = {"config": None}

        server.call(offers_config)
        yield server


@pytest.fixture
def admin(server: PlatformServer) -> Iterator[Platform]:
    with server.sign_in() as platform:
        yield platform
        for service in platform.services():
            platform.delete_service(service["name"])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("Faces", "Plates"):
        layout.new(tmp_path, name)
    (tmp_path / "Model_ZOO" / "a.pb").write_bytes(b"a")
    return tmp_path


def edit(root: Path, old: str, new: str) -> None:
    path = root / "conf.ini"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def applied(
    admin: Platform, root: Path, group: str | None = None, *, adopt: bool = False
) -> list[Applied]:
    display = Display(admin)
    path = root / "conf.ini"
    asked = apply.read(path, path.read_text())
    apply.settle(admin, asked, display)
    changes = apply.planned(admin, asked, group, adopt=adopt)
    return apply.carry_out(admin, asked, changes, group, display)


def kinds(done: list[Applied]) -> dict[str, Kind]:
    assert not [one for one in done if one.error], done
    return {one.name: one.kind for one in done}


def begun(admin: Platform) -> list[int]:
    return [rollout["id"] for rollout in admin.rollouts()]


def test_applying_brings_online_what_is_asked_for_and_a_second_time_nothing(
    admin: Platform, root: Path
) -> None:
    edit(root, "replicas = 1", "replicas = 2\nthreads = 3\nkeep_warm_s = 5\nstrategy = rolling")
    edit(root, "model =\n", "model = a.pb\n")
    assert kinds(applied(admin, root)) == {"Faces": Kind.ADD, "Plates": Kind.ADD}
    service, deployment = admin.service("Faces"), admin.deployment("Faces", 1)
    assert (service["route"], service["method"], service["route_port"]) == ("faces", "GET", 9090)
    assert service["source"].endswith(str(root / "conf.ini"))
    assert (service["group"], deployment["replicas"], deployment["threads"]) == ("admin", 2, 3)
    assert (deployment["keep_warm_s"], deployment["strategy"]["name"]) == (5.0, "rolling")
    assert admin.version("Faces", 1)["model_path"] == "Model_ZOO,a.pb"
    before = begun(admin), admin.service("Faces")["revision"], len(admin.audit(1000))
    assert kinds(applied(admin, root)) == {"Faces": Kind.KEEP, "Plates": Kind.KEEP}
    assert (begun(admin), admin.service("Faces")["revision"], len(admin.audit(1000))) == before


def test_a_change_touches_no_other_section(admin: Platform, root: Path) -> None:
    applied(admin, root)
    plates = admin.deployment("Plates", 1)["revision"]
    (root / "algopkg" / "Faces" / "more.py").write_text("x = 1\n")
    assert kinds(applied(admin, root)) == {"Faces": Kind.CHANGE, "Plates": Kind.KEEP}
    assert admin.deployment("Faces", 2)["state"] == "serving"
    assert admin.deployment("Plates", 1)["revision"] == plates


def test_going_back_to_earlier_files_is_going_back_to_their_version(
    admin: Platform, root: Path
) -> None:
    applied(admin, root)
    more = root / "algopkg" / "Faces" / "more.py"
    more.write_text("x = 1\n")
    applied(admin, root)
    more.unlink()
    applied(admin, root)
    assert admin.deployment("Faces", 1)["state"] == "serving"
    assert [version["version"] for version in admin.versions("Faces")] == [2, 1]


def test_what_somebody_put_online_beside_it_goes_and_the_file_answers_alone(
    admin: Platform, root: Path
) -> None:
    applied(admin, root)
    (root / "algopkg" / "Faces" / "more.py").write_text("x = 1\n")
    applied(admin, root)
    admin.wait(admin.deploy("Faces", 1, weight=3.0)["rollout"]["id"])  # by hand
    assert kinds(applied(admin, root))["Faces"] is Kind.CHANGE
    assert admin.traffic("Faces")["weights"] == {"2": 1.0}
    assert kinds(applied(admin, root))["Faces"] is Kind.KEEP
    (root / "algopkg" / "Faces" / "more.py").write_text("x = 2\n")
    admin.wait(admin.deploy("Faces", 1, weight=3.0)["rollout"]["id"])
    applied(admin, root)
    assert admin.traffic("Faces")["weights"] == {"3": 1.0}


def test_it_is_not_as_asked_for_while_its_route_cannot_be_had(
    admin: Platform, root: Path, server: PlatformServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    applied(admin, root)
    monkeypatch.setattr(apply, "PORT_S", 0.2)
    monkeypatch.setattr(server.node, "refused_ports", {9090: "127.0.0.1:9090 is in use"})
    done = applied(admin, root)
    assert {one.kind for one in done} == {Kind.KEEP}
    assert ["not at its route: " in one.error for one in done] == [True, True]


def test_replicas_alone_begin_no_rollout(admin: Platform, root: Path) -> None:
    applied(admin, root)
    before = begun(admin)
    edit(root, "replicas = 1", "replicas = 3")
    assert kinds(applied(admin, root))["Faces"] is Kind.CHANGE
    assert admin.deployment("Faces", 1)["ready"] == 3
    assert begun(admin) == before


def test_an_instance_type_is_made_once_for_all_sections_that_ask_for_its_numbers(
    admin: Platform, root: Path
) -> None:
    text = (root / "conf.ini").read_text()
    (root / "conf.ini").write_text(text.replace("gpu_cost = 0", "cpu = 0.5\nmemory = 64M"))
    assert kinds(applied(admin, root)) == {"Faces": Kind.ADD, "Plates": Kind.ADD}
    made = admin.deployment("Plates", 1)
    assert (made["cpu"], made["memory"], made["gpu"]) == (0.5, 64 << 20, 0.0)
    assert admin.deployment("Faces", 1)["instance_type"] == made["instance_type"]
    assert kinds(applied(admin, root)) == {"Faces": Kind.KEEP, "Plates": Kind.KEEP}


def test_user_config_is_the_option_that_reconfigure_gets_and_can_be_taken_back(
    admin: Platform, root: Path
) -> None:
    applied(admin, root)
    edit(root, "route = faces", 'route = faces\nuser_config = {"threshold": 1}')
    applied(admin, root)
    assert admin.deployment("Faces", 1)["options"] == {"config": {"threshold": 1}}
    edit(root, '\nuser_config = {"threshold": 1}', "")
    applied(admin, root)
    assert admin.deployment("Faces", 1)["options"] == {}


def test_a_section_that_is_commented_out_drains_and_comes_again_as_the_same_version(
    admin: Platform, root: Path
) -> None:
    admin.create_service("Byhand", "admin")
    applied(admin, root)
    whole = (root / "conf.ini").read_text()
    (root / "conf.ini").write_text(whole[: whole.index("[algopkg.Plates]")])
    assert kinds(applied(admin, root)) == {"Plates": Kind.REMOVE, "Faces": Kind.KEEP}
    service = admin.service("Plates")
    assert (service["route"], service["deployments"], service["versions"]) == (None, [], 1)
    assert admin.service("Byhand")["status"] == "Offline"
    assert kinds(applied(admin, root)) == {"Faces": Kind.KEEP}
    (root / "conf.ini").write_text(whole)
    assert kinds(applied(admin, root)) == {"Faces": Kind.KEEP, "Plates": Kind.ADD}
    assert (admin.service("Plates")["versions"], admin.service("Plates")["route"]) == (1, "plates")


def test_a_service_that_is_not_of_this_file_is_left_alone_until_it_is_adopted(
    admin: Platform, root: Path
) -> None:
    admin.create_service("Faces", "admin")
    before = admin.service("Faces")
    with pytest.raises(Refused, match="made by hand"):
        applied(admin, root)
    assert admin.service("Faces") == before
    assert [service["name"] for service in admin.services()] == ["Faces"]
    assert kinds(applied(admin, root, adopt=True))["Faces"] is Kind.ADD
    assert admin.service("Faces")["source"].endswith("conf.ini")


def test_a_group_is_where_new_services_are_made(admin: Platform, root: Path) -> None:
    admin.create_group("risk")
    applied(admin, root, "risk")
    assert admin.service("Faces")["group"] == "risk"
    with pytest.raises(Refused, match="never moves"):
        applied(admin, root, "admin")
    assert kinds(applied(admin, root)) == {"Faces": Kind.KEEP, "Plates": Kind.KEEP}
    for name in ("Faces", "Plates"):
        admin.delete_service(name)
    admin.delete_group("risk")


def test_one_that_cannot_be_done_does_not_keep_the_others_from_it(
    admin: Platform, root: Path
) -> None:
    applied(admin, root)
    text = (root / "conf.ini").read_text()
    (root / "conf.ini").write_text(text.replace("replicas = 1", "replicas = 2"))
    admin.set_quota("admin", replicas=3)  # of 4 that the two would take
    try:
        done = applied(admin, root)
    finally:
        admin.set_quota("admin")
    assert [(one.name, "over quota" in one.error) for one in done] == [
        ("Faces", False), ("Plates", True),
    ]  # fmt: skip
    assert admin.deployment("Plates", 1)["replicas"] == 1


def test_everything_wrong_is_told_before_anything_is_done(admin: Platform, root: Path) -> None:
    edit(root, "replicas = 1", "replicas = 60\ncolour = red")
    edit(root, "model =\n", "model = none.pb\n")
    text = (root / "conf.ini").read_text()
    (root / "conf.ini").write_text(text.replace("route = plates", "route = plates\nreplicas = 99"))
    with pytest.raises(Refused) as caught:
        applied(admin, root)
    told = [problem.text.split(" ")[0] for problem in caught.value.problems]
    assert {"colour", "replicas"} <= set(told)
    assert admin.services() == []


def test_a_name_in_the_file_makes_it_the_same_wherever_it_stands(
    admin: Platform, root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    edit(root, "[MODEL SERVE]", "[MODEL SERVE]\nname = shop")
    applied(admin, root)
    assert admin.service("Faces")["source"] == "conf.ini shop"
    elsewhere = tmp_path_factory.mktemp("clone") / "again"
    root.rename(elsewhere)
    assert kinds(applied(admin, elsewhere)) == {"Faces": Kind.KEEP, "Plates": Kind.KEEP}
    elsewhere.rename(root)


def test_a_rollout_that_is_under_way_is_waited_for(
    admin: Platform, root: Path, server: PlatformServer
) -> None:
    applied(admin, root)
    server.node.holding = True
    admin.redeploy("Faces", 1)
    path = root / "conf.ini"
    display = Display(admin)

    class Releasing(Platform):
        def wait(self, *given: Any, **named: Any) -> Any:
            server.node.holding = False
            return super().wait(*given, **named)

    with Releasing(admin.url, admin.token) as platform:
        apply.settle(platform, apply.read(path, path.read_text()), display)
    assert display.lines[0].startswith("Faces: waiting for rollout ")
    assert kinds(applied(admin, root)) == {"Faces": Kind.KEEP, "Plates": Kind.KEEP}


def test_dry_run_records_say_what_would_be_done(admin: Platform, root: Path) -> None:
    path = root / "conf.ini"
    asked = apply.read(path, path.read_text())
    told = apply.proposed(apply.planned(admin, asked, None, adopt=False))
    assert [(one.name, one.kind, one.version) for one in told] == [
        ("Faces", Kind.ADD, 0), ("Plates", Kind.ADD, 0),
    ]  # fmt: skip
    assert admin.services() == []
    assert replace(told[0], words=()).error == ""
