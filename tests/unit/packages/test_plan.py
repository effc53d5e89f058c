"""What is asked for, held against what runs: problems, and what there is to do. Plain data."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from modelcloud.packages import plan
from modelcloud.packages.conf import Conf, parse
from modelcloud.packages.plan import (
    Change,
    Code,
    Deployed,
    Facts,
    Kind,
    Known,
    Roll,
    Settings,
)
from modelcloud.types import Resources, StrategySpec

SOURCE = "host:/srv/conf.ini"
CODE = Code(digest="d1", requirements="six", python="", model_path="Model_ZOO,a.pb")
SMALL = Resources(cpu=1.0, memory=1 << 30)
BLUE_GREEN: dict[str, Any] = plan._as_told(StrategySpec())


def conf(*, port: str = "port = 9090", **keys: object) -> Conf:
    given = {"backend": "B", "route": "faces", **keys}
    lines = "".join(f"{key} = {value}\n" for key, value in given.items())
    found, problems = parse(f"[MODEL SERVE]\n{port}\n[algopkg.Faces]\n{lines}", "conf.ini")
    assert problems == []
    return found


def settings(**changed: Any) -> Settings:
    return replace(
        Settings(
            instance_type="small",
            replicas=1,
            threads=1,
            keep_warm_s=60.0,
            strategy=BLUE_GREEN,
            options={},
            engine="local",
        ),
        **changed,
    )


def running(*deployed: Deployed, name: str = "Faces", **changed: Any) -> Known:
    found = Known(
        name=name,
        group="ann",
        source=SOURCE,
        route="faces",
        method="GET",
        route_port=9090,
        port=None,
        deployed=deployed or (Deployed(version=3, serves=True, settings=settings(), code=CODE),),
    )
    return replace(found, **changed)


def facts(*services: Known, **changed: Any) -> Facts:
    found = Facts(
        services={service.name: service for service in services},
        types={"small": SMALL},
        port=8080,
        cores=4.0,
        gpus=0.0,
    )
    return replace(found, **changed)


def change(asked: Conf, there: Facts, code: Code = CODE) -> Change:
    (found,) = plan.changes(asked, {"Faces": code}, there, SOURCE)
    return found


# ---- what there is to do


def test_what_runs_as_it_is_asked_for_is_kept() -> None:
    assert change(conf(), facts(running())).kind is Kind.KEEP


def test_a_section_without_a_service_comes_online_at_its_route() -> None:
    found = change(conf(replicas=2), facts())
    assert (found.kind, found.roll, found.replaces) == (Kind.ADD, Roll.NEW, 0)
    assert found.fields == {
        "route": "faces", "method": "GET", "route_port": 9090, "source": SOURCE,
    }  # fmt: skip
    assert found.settings == settings(replicas=2)


def test_the_platforms_own_port_is_told_as_none_of_its_own() -> None:
    there = facts(running(route_port=0))
    assert change(conf(port="port = 8080"), there).kind is Kind.KEEP
    assert change(conf(port=""), there).kind is Kind.KEEP


@pytest.mark.parametrize(
    ("keys", "roll", "scale", "words"),
    [
        ({"replicas": 2}, Roll.SCALE, True, ("replicas 1 → 2",)),
        ({"user_config": '{"t": 1}'}, Roll.OPTIONS, False, ("user_config",)),
        ({"user_config": "1", "replicas": 2}, Roll.OPTIONS, True,
         ("replicas 1 → 2", "user_config")),
        ({"threads": 2}, Roll.REPLACE, False, ("threads 1 → 2",)),
        ({"threads": 2, "replicas": 2, "user_config": "1"}, Roll.REPLACE, False,
         ("replicas 1 → 2", "threads 1 → 2", "user_config")),
        ({"strategy": "rolling"}, Roll.REPLACE, False, ("strategy blue_green → rolling",)),
        ({"keep_warm_s": 5}, Roll.REPLACE, False, ("keep_warm_s 60 → 5",)),
        ({"method": "POST"}, Roll.NONE, False, ("method GET → POST",)),
        ({"route": "a/b"}, Roll.NONE, False, ("route faces → a/b",)),
    ],
)  # fmt: skip
def test_each_difference_is_made_up_for_with_the_least_that_does(
    keys: dict[str, Any], roll: Roll, scale: bool, words: tuple[str, ...]
) -> None:
    found = change(conf(**keys), facts(running()))
    assert (found.kind, found.roll, found.scale, found.words) == (Kind.CHANGE, roll, scale, words)
    assert found.replaces == 3


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"digest": "d2"}, ("code or model files",)),
        ({"requirements": ""}, ("requirements",)),
        ({"python": "/usr/bin/python3"}, ("python",)),
        ({"model_path": ""}, ("model",)),
    ],
)
def test_another_version_takes_the_place_of_the_one_online(
    changed: dict[str, str], words: tuple[str, ...]
) -> None:
    found = change(conf(), facts(running()), replace(CODE, **changed))
    assert (found.roll, found.words, found.replaces) == (Roll.REPLACE, words, 3)


def test_a_section_that_is_gone_takes_its_service_along_and_no_other() -> None:
    mine = running(name="Old", route="old")
    others = running(name="Theirs", source="host:/elsewhere/conf.ini", route="theirs")
    by_hand = running(name="Byhand", source="", route=None)
    found = plan.changes(conf(), {"Faces": CODE}, facts(mine, others, by_hand, running()), SOURCE)
    assert [(one.name, one.kind) for one in found] == [
        ("Old", Kind.REMOVE), ("Faces", Kind.KEEP),
    ]  # fmt: skip


def test_what_is_gone_already_is_no_change() -> None:
    gone = running(name="Old", route=None, deployed=())
    found = plan.changes(conf(), {"Faces": CODE}, facts(gone, running()), SOURCE)
    assert [one.name for one in found] == ["Faces"]


def test_a_deployment_that_failed_makes_room_for_a_new_one() -> None:
    failed = Deployed(version=3, serves=False, settings=settings())
    found = change(conf(), facts(running(failed)))
    assert (found.kind, found.roll, found.clear) == (Kind.CHANGE, Roll.NEW, (3,))


def test_of_several_online_the_newest_is_replaced() -> None:
    older = Deployed(version=2, serves=True, settings=settings(), code=CODE)
    newer = replace(older, version=5)
    assert change(conf(threads=2), facts(running(older, newer))).replaces == 5


def test_resources_in_numbers_are_an_instance_type_that_is_there_or_is_made() -> None:
    types = {"small": SMALL, "two": Resources(cpu=2.0)}
    found = change(conf(cpu=2), facts(types=types))
    assert found.settings is not None
    assert (found.settings.instance_type, found.make_type) == ("two", False)
    made = change(conf(cpu=0.5, memory="512M"), facts(types=types))
    assert made.settings is not None
    assert made.settings.instance_type == "cpu0_5-memory536870912-gpu0"
    assert made.make_type
    assert made.resources == Resources(cpu=0.5, memory=512 << 20)


# ---- what is wrong


def refused(asked: Conf, there: Facts, group: str | None = None, *, adopt: bool = False) -> str:
    (found,) = plan.problems(asked, there, SOURCE, group, adopt=adopt)
    return str(found)


def test_nothing_is_wrong_with_what_runs() -> None:
    assert plan.problems(conf(), facts(running()), SOURCE, None, adopt=False) == []


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"replicas": 5}, "conf.ini:6: replicas is 5, more than the 4 cores"),
        ({"gpu_cost": 0.5, "instance_type": ""}, "no instance type has"),
        ({"engine": "ray"}, "engine is ray, which this platform was not started with"),
        ({"instance_type": "huge"}, "there is no instance type huge; accepted: small"),
        ({"cpu": 3}, "no instance type has cpu 3, memory 0 and gpu 0"),
    ],
)
def test_what_the_platform_cannot_do_is_refused(keys: dict[str, Any], words: str) -> None:
    assert words in refused(conf(**keys), facts(gpus=1.0))


def test_more_devices_than_there_are_are_refused_with_their_sum() -> None:
    there = facts(gpus=1.0, may_make_types=True)
    assert "0.5, of 3 replicas 1.5" in refused(conf(gpu_cost=0.5, replicas=3), there)
    assert not plan.problems(conf(gpu_cost=0.5, replicas=2), there, SOURCE, None, adopt=False)


def test_an_engine_that_the_platform_has_is_taken() -> None:
    there = facts(engines=("local", "ray"))
    assert plan.problems(conf(engine="ray"), there, SOURCE, None, adopt=False) == []


def test_a_section_that_names_no_engine_runs_where_the_platform_runs_workers() -> None:
    there = facts(running(), engines=("ray", "local"))
    found = change(conf(), there)
    assert (found.roll, found.words) == (Roll.REPLACE, ("engine local → ray",))
    assert found.settings is not None
    assert found.settings.engine == "ray"
    assert change(conf(engine="local"), there).kind is Kind.KEEP


def test_the_cores_of_the_node_are_no_limit_to_a_cluster() -> None:
    there = facts(engines=("ray", "local"))
    assert plan.problems(conf(replicas=5), there, SOURCE, None, adopt=False) == []
    assert "more than the 4 cores" in refused(conf(replicas=5, engine="local"), there)


def test_a_service_that_is_not_of_this_file_is_refused_unless_it_is_adopted() -> None:
    by_hand = facts(running(source=""))
    assert "conf.ini:3: there is a service 'Faces' that was made by hand" in refused(
        conf(), by_hand
    )
    other = facts(running(source="there:/conf.ini"))
    assert "is kept by there:/conf.ini" in refused(conf(), other)
    assert plan.problems(conf(), by_hand, SOURCE, None, adopt=True) == []
    assert change(conf(), by_hand).fields == {"source": SOURCE}


def test_a_service_never_moves_to_another_group() -> None:
    assert "is in group 'ann'" in refused(conf(), facts(running()), "bob")
    assert plan.problems(conf(), facts(running()), SOURCE, "ann", adopt=False) == []


def test_a_route_of_another_service_is_refused() -> None:
    other = running(name="Other", source="")
    assert "route faces is that of service 'Other'" in refused(conf(), facts(other))
    elsewhere = facts(replace(other, route_port=7000))
    assert plan.problems(conf(), elsewhere, SOURCE, None, adopt=False) == []
    leaving = facts(replace(other, source=SOURCE))
    assert plan.problems(conf(), leaving, SOURCE, None, adopt=False) == []


def test_at_the_platforms_port_a_route_cannot_begin_with_a_services_name() -> None:
    told = refused(conf(port="", route="faces/extract"), facts())
    assert "begins with the name of the service 'Faces'" in told


def test_a_port_that_is_a_services_own_is_refused() -> None:
    other = running(name="Other", source="", route=None, port=9090)
    assert refused(conf(), facts(other)).startswith("conf.ini:2: port 9090 is the own one of")


def test_what_others_put_online_beside_it_goes() -> None:
    mine = Deployed(version=1, serves=True, settings=settings(), code=CODE)
    theirs = Deployed(version=2, serves=True, settings=settings(), code=replace(CODE, digest="b"))
    found = change(conf(), facts(running(mine, theirs)))
    assert (found.kind, found.roll, found.replaces) == (Kind.CHANGE, Roll.NONE, 1)
    assert (found.others, found.words) == ((2,), ("version 2 drains",))


def pair(first: str, second: str) -> Conf:
    """Two sections, of these routes."""
    return replace(
        conf(), sections=tuple(
            replace(conf().sections[0], name=name, route=route, line=line, lines={"route": line})
            for name, route, line in (("Faces", first, 3), ("Plates", second, 9))
        ),
    )  # fmt: skip


def test_a_route_is_left_before_another_section_takes_it() -> None:
    there = facts(running(), running(name="Plates", route="plates"))
    asked = pair("plates", "signs")  # the first in the file waits for the second
    codes = {"Faces": CODE, "Plates": CODE}
    assert plan.problems(asked, there, SOURCE, None, adopt=False) == []
    found = plan.changes(asked, codes, there, SOURCE)
    assert [one.name for one in found] == ["Plates", "Faces"]


def test_sections_that_wait_for_each_others_routes_are_refused() -> None:
    there = facts(running(), running(name="Plates", route="plates"))
    told = [
        str(one) for one in plan.problems(pair("plates", "faces"), there, SOURCE, None, adopt=False)
    ]
    assert len(told) == 2
    assert told[0].startswith("conf.ini:3: route plates is that of a section that waits")
    assert told[1].startswith("conf.ini:9: route faces")


def test_a_name_that_differs_from_a_services_by_case_alone_is_refused() -> None:
    there = facts(running(name="faces", source="", route=None))
    assert "differs from that of the service 'faces'" in refused(conf(), there)
