"""Who answers where: a pure function of what is deployed and what serves."""

from __future__ import annotations

from typing import Any

from modelcloud.control.reconcile.routing import Place, Reached, routing


def place(number: int, version: int, **more: Any) -> Place:
    given: dict[str, Any] = {
        "answers": (version,),
        "labels": (),
        "weight": 1.0,
        "shadow": 0.0,
        "serves": True,
        **more,
    }
    return Place(id=number, key=f"m/{number}", version=version, **given)


def routes(*places: Place) -> dict[str, Any]:
    reached = Reached(service="m", port=0, sticky=None, tokens=None, places=places)
    (service,) = routing([reached]).services
    return {route.deployment: route for route in service.deployments}


def test_a_version_that_serves_has_its_address_before_one_that_replaced_it() -> None:
    replaced = place(1, 7, answers=(1, 7))
    found = routes(replaced, place(2, 1))
    assert (found["m/1"].versions, found["m/2"].versions) == ((7,), (1,))


def test_a_version_takes_its_address_over_only_when_it_serves() -> None:
    replaced = place(1, 7, answers=(1, 7))
    found = routes(replaced, place(2, 1, serves=False))
    assert (found["m/1"].versions, found["m/2"].versions) == ((1, 7), ())


def test_what_does_not_serve_yet_takes_no_share_and_no_copies() -> None:
    found = routes(place(1, 1), place(2, 2, weight=5.0, shadow=0.5, serves=False))
    assert (found["m/1"].weight, found["m/2"].weight, found["m/2"].shadow) == (1.0, 0.0, 0.0)


def test_the_first_deployment_has_its_share_before_it_serves() -> None:
    assert routes(place(1, 1, serves=False))["m/1"].weight == 1.0


def test_without_any_weight_the_one_deployed_first_answers() -> None:
    found = routes(place(3, 2, weight=0.0), place(2, 1, weight=0.0))
    assert (found["m/2"].weight, found["m/3"].weight) == (1.0, 0.0)


def test_a_service_with_nothing_online_is_not_reached() -> None:
    empty = Reached(service="m", port=0, sticky=None, tokens=None, places=())
    assert routing([empty]).services == ()


def test_what_a_version_offers_is_told_with_its_route_once_it_serves() -> None:
    offers = ({"name": "predict"},)
    found = routes(place(1, 1, commands=offers), place(2, 2, commands=offers, serves=False))
    assert (found["m/1"].commands, found["m/2"].commands) == (offers, ())
