"""From how services are to be reached, and what runs of them, to paths and pools."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from modelcloud.config import Limits
from modelcloud.dataplane.messages import (
    AdminRoute,
    CommandRoute,
    RouteTable,
    Share,
    WorkerAddress,
)
from modelcloud.dataplane.routes import DeploymentState, RoutedGeneration, build_table
from modelcloud.types import DeploymentRoute, RouteAddress, Routing, ServiceRouting, Sticky

META = AdminRoute(path="/meta", methods=("GET",))
REDOC = AdminRoute(path="/redoc/*", methods=("GET",), yields=True)
USER = Sticky("header", "x-user")


def command(name: str, **fields: bool) -> dict[str, Any]:
    plain = {"idempotent": True, "streams": False, "withRequest": False, "wholeSite": False}
    return {"name": name, **plain, **fields}


def generation(
    number: int,
    *commands: str | dict[str, Any],
    version: int = 1,
    percent: float | None = None,
    ready: int = 1,
) -> RoutedGeneration:
    addresses = [WorkerAddress(number * 10 + i, f"w{i}", number, version) for i in range(ready)]
    known = [command(c) if isinstance(c, str) else c for c in commands or ("predict",)]
    return RoutedGeneration(
        number=number,
        version=version,
        signature={"commands": known},
        workers=tuple(addresses),
        percent=percent,
    )


def state(*generations: RoutedGeneration, available: bool = True) -> DeploymentState:
    return DeploymentState(service="m", generations=generations, available=available)


def table(
    states: dict[str, DeploymentState],
    *deployments: DeploymentRoute,
    sticky: Sticky | None = None,
    tokens: tuple[str, ...] | None = None,
    at_root: bool = False,
    port: int = 0,
    route: RouteAddress | None = None,
) -> RouteTable:
    """Of one service `m`."""
    service = ServiceRouting(
        service="m", deployments=deployments, sticky=sticky, tokens=tokens, at_root=at_root,
        port=port, route=route,
    )  # fmt: skip
    return build_table(
        snapshot=7,
        routing=Routing(services=(service,)),
        deployments=states,
        limits=Limits(queue=5, deadline_s=3.0),
        admin=(META, REDOC),
        service_admin=(META, REDOC),
        port_admin=(META, REDOC),
    )


def by_path(made: RouteTable, port: int = 0) -> dict[str, CommandRoute]:
    (site,) = (site for site in made.sites if site.port == port)
    return {path: route for route in site.commands for path in route.paths}


def admin_at(made: RouteTable, port: int = 0) -> list[str]:
    (site,) = (site for site in made.sites if site.port == port)
    return [route.path for route in site.admin]


def test_in_serve_mode_the_addresses_are_those_at_the_root_and_no_others() -> None:
    made = table(
        {"m": state(generation(2, "fib", "size"))}, DeploymentRoute(deployment="m"), at_root=True
    )
    assert set(by_path(made)) == {"/fib", "/m/fib", "/size", "/m/size"}
    assert {route.shares for route in by_path(made).values()} == {(Share("m"),)}
    assert admin_at(made) == ["/meta", "/redoc/*"]
    (pool,) = made.pools
    assert (made.snapshot, pool.name, pool.queue, pool.deadline_s) == (7, "m", 5, 3.0)
    assert [worker.id for worker in pool.workers] == [20]


def test_a_web_application_has_the_whole_root_but_for_what_does_not_yield_to_it() -> None:
    app = command("app", wholeSite=True, withRequest=True)
    states = {"m": state(generation(1, app))}
    made = table(states, DeploymentRoute(deployment="m"), at_root=True)
    (route,) = made.sites[0].commands
    assert (route.paths, route.whole_site, route.about) == ((), True, b"")
    assert admin_at(made) == ["/meta"]


def test_on_the_platform_a_web_application_is_reached_at_its_own_port_alone() -> None:
    app = command("app", wholeSite=True, withRequest=True)
    states = {"m/1": state(generation(1, app))}
    made = table(states, DeploymentRoute(deployment="m/1", versions=(1,)), port=9000)
    assert made.sites[0].commands == ()
    assert [route.whole_site for route in made.sites[1].commands] == [True]
    assert admin_at(made) == ["/meta", "/redoc/*", "/m/meta", "/m/redoc/*"]
    assert admin_at(made, 9000) == ["/meta"]


def test_a_service_is_reached_by_weights_and_each_deployment_by_versions_and_labels() -> None:
    made = table(
        {"m/1": state(generation(1)), "m/2": state(generation(2, version=2))},
        DeploymentRoute(deployment="m/1", versions=(1,), labels=("stable",), weight=3.0),
        DeploymentRoute(deployment="m/2", versions=(2,), weight=0.0),
        sticky=USER,
    )
    routes = by_path(made)
    assert set(routes) == {
        "/m/predict", "/m/1/predict", "/m/stable/predict", "/m/2/predict",
        "/predict/m", "/predict/m/1", "/predict/m/stable", "/predict/m/2",
    }  # fmt: skip
    assert {path: route.shares[0].pool for path, route in routes.items() if "2" in path} == {
        "/m/2/predict": "m/2", "/predict/m/2": "m/2",
    }  # fmt: skip
    assert routes["/predict/m"].shares == (Share("m/1", 3.0),)
    assert {path for path, route in routes.items() if route.wrapped} == {
        path for path in routes if path.startswith("/predict/")
    }
    assert routes["/predict/m"].sticky is None  # there is nothing to choose


def test_weights_are_those_of_the_deployments() -> None:
    made = table(
        {"m/1": state(generation(1)), "m/2": state(generation(2, version=2))},
        DeploymentRoute(deployment="m/1", weight=1.0),
        DeploymentRoute(deployment="m/2", weight=3.0),
        sticky=USER,
    )
    route = by_path(made)["/m/predict"]
    assert route.shares == (Share("m/1", 1.0), Share("m/2", 3.0))
    assert route.sticky == USER


def test_a_number_that_two_answer_leads_to_the_one_that_stands_at_it_else_to_the_newer() -> None:
    replaced = state(generation(7, version=7))  # went from version 1 to version 7
    again = state(generation(8, version=1))
    first = DeploymentRoute(deployment="m/1", versions=(1, 7), labels=("x",))
    second = DeploymentRoute(deployment="m/2", versions=(1,), labels=("x",))
    for order in ((first, second), (second, first)):
        routes = by_path(table({"m/1": replaced, "m/2": again}, *order))
        assert routes["/predict/m/1"].shares == (Share("m/2"),)
        assert routes["/predict/m/7"].shares == (Share("m/1"),)
        assert routes["/predict/m/x"].shares == (Share(order[1].deployment),)
    routes = by_path(
        table({"m/1": replaced, "m/2": state(generation(9, version=9))}, first, second)
    )
    assert routes["/predict/m/1"].shares == (Share("m/2"),)


def test_a_generation_with_a_percentage_has_a_pool_and_that_part_of_its_deployment() -> None:
    canary = generation(5, version=2, percent=25)
    made = table(
        {"m/1": state(generation(4), canary), "m/2": state(generation(3))},
        DeploymentRoute(deployment="m/1", versions=(1,), weight=2.0),
        DeploymentRoute(deployment="m/2"),
        sticky=USER,
    )
    pools = {pool.name: pool for pool in made.pools}
    assert set(pools) == {"m/1", "m/1@5", "m/2"}
    assert (pools["m/1@5"].heir, pools["m/1"].heir) == ("m/1", "")
    assert [worker.generation for worker in pools["m/1@5"].workers] == [5]
    assert [worker.generation for worker in pools["m/1"].workers] == [4]
    routes = by_path(made)
    assert routes["/m/predict"].shares == (
        Share("m/1@5", 0.5), Share("m/1", 1.5), Share("m/2", 1.0),
    )  # fmt: skip
    assert routes["/predict/m/1"].shares == (Share("m/1@5", 0.25), Share("m/1", 0.75))
    assert routes["/predict/m/1"].sticky == USER  # a canary keeps its clients too


@pytest.mark.parametrize(
    ("percent", "ready", "shares"),
    [
        (0.0, 1, (Share("m/1"),)),
        (50.0, 0, (Share("m/1"),)),  # no worker of it is ready
        (100.0, 1, (Share("m/1@5", 1.0),)),
    ],
)
def test_a_part_is_given_to_workers_that_are_there(
    percent: float, ready: int, shares: tuple[Share, ...]
) -> None:
    canary = generation(5, percent=percent, ready=ready)
    made = table({"m/1": state(generation(4), canary)}, DeploymentRoute(deployment="m/1"))
    assert by_path(made)["/m/predict"].shares == shares


def test_requests_go_to_a_deployment_that_can_answer_while_another_cannot() -> None:
    up, down = state(generation(1)), state(generation(2, ready=0), available=False)
    routes = (DeploymentRoute(deployment="m/1"), DeploymentRoute(deployment="m/2", versions=(2,)))
    made = by_path(table({"m/1": up, "m/2": down}, *routes))
    assert made["/m/predict"].shares == (Share("m/1"),)
    assert made["/m/2/predict"].shares == (Share("m/2"),)  # 503 says more than 404
    made = by_path(table({"m/1": down, "m/2": down}, *routes))
    assert made["/m/predict"].shares == (Share("m/1"), Share("m/2"))


def test_a_command_goes_to_those_who_have_it() -> None:
    made = by_path(
        table(
            {
                "m/1": state(generation(1, "old", "both"), generation(2, "both", "new", percent=5)),
                "m/2": state(generation(3, "both")),
            },
            DeploymentRoute(deployment="m/1", versions=(1,)),
            DeploymentRoute(deployment="m/2"),
        )
    )
    shares = {path: [s.pool for s in route.shares] for path, route in made.items()}
    assert shares["/m/old"] == ["m/1"]
    assert shares["/m/new"] == ["m/1@2"]
    assert shares["/m/both"] == ["m/1@2", "m/1", "m/2"]
    assert (made["/predict/m"].command, made["/predict/m/1"].command) == ("both", "old")


def test_predict_is_the_command_of_that_name_wherever_it_stands() -> None:
    made = by_path(
        table({"m/1": state(generation(1, "a", "predict"))}, DeploymentRoute(deployment="m/1"))
    )
    assert made["/predict/m"].command == "predict"


def test_a_route_is_as_careful_as_the_most_careful_of_its_deployments() -> None:
    careless = command("ask")
    careful = command("ask", idempotent=False, withRequest=True)
    for first, second in ((careless, careful), (careful, careless)):
        made = table(
            {"m/1": state(generation(1, first)), "m/2": state(generation(2, second))},
            DeploymentRoute(deployment="m/1"),
            DeploymentRoute(deployment="m/2"),
        )
        route = by_path(made)["/m/ask"]
        assert (route.idempotent, route.with_meta) == (False, True)


def test_a_shadow_gets_copies_of_what_others_answer_except_where_a_copy_makes_no_sense() -> None:
    asked = (
        "ask",
        command("flow", streams=True),
        command("meta", withRequest=True),
        command("pay", idempotent=False),
    )
    made = by_path(
        table(
            {"m/1": state(generation(1, *asked)), "m/2": state(generation(2, *asked))},
            DeploymentRoute(deployment="m/1", versions=(1,)),
            DeploymentRoute(deployment="m/2", versions=(2,), weight=0.0, shadow=0.5),
        )
    )
    copied = {path for path, route in made.items() if route.shadows == (Share("m/2", 0.5),)}
    assert copied == {"/m/ask", "/m/1/ask", "/predict/m", "/predict/m/1"}
    assert all(not route.shadows for path, route in made.items() if path not in copied)


def test_the_routes_of_a_service_with_tokens_name_its_set_even_when_that_is_empty() -> None:
    made = table({"m/1": state(generation(1))}, DeploymentRoute(deployment="m/1"), tokens=())
    assert {route.tokens for route in by_path(made).values()} == {"m"}
    assert made.token_sets == {"m": ()}
    public = table({"m/1": state(generation(1))}, DeploymentRoute(deployment="m/1"))
    assert {route.tokens for route in by_path(public).values()} == {""}
    assert public.token_sets == {}


def test_at_its_own_port_a_service_has_the_addresses_of_serve_mode_beside_its_others() -> None:
    made = table(
        {"m/1": state(generation(1, "fib"))}, DeploymentRoute(deployment="m/1", versions=(1,)),
        port=9000,
    )  # fmt: skip
    named = {"/m/fib", "/m/1/fib", "/predict/m", "/predict/m/1"}
    assert set(by_path(made)) == named
    assert set(by_path(made, 9000)) == named | {"/fib"}
    assert admin_at(made, 9000) == ["/meta", "/redoc/*"]


def test_a_deployment_that_nothing_is_known_of_has_no_path_and_one_nobody_names_has_a_pool() -> (
    None
):
    made = table(
        {"m/1": DeploymentState(service="m"), "m/3": state(generation(3))},
        DeploymentRoute(deployment="m/1", versions=(1,)),
        DeploymentRoute(deployment="m/2", versions=(2,)),
    )
    assert by_path(made) == {}
    assert [pool.name for pool in made.pools] == ["m/1", "m/3"]


def test_a_deployment_whose_commands_are_known_has_its_paths_before_anything_of_it_runs() -> None:
    route = DeploymentRoute(deployment="m/1", versions=(1,), commands=(command("fib"),))
    paths = {"/m/fib", "/m/1/fib", "/predict/m", "/predict/m/1"}
    empty = RoutedGeneration(number=4, version=1)
    for states in ({}, {"m/1": state(empty)}):
        made = table(states, route)
        assert set(by_path(made)) == paths
        (pool,) = made.pools
        assert (pool.name, pool.workers, pool.available) == ("m/1", (), True), "requests wait"
    gone = table({"m/1": state(empty, available=False)}, route)
    assert set(by_path(gone)) == paths
    assert not gone.pools[0].available, "503, and not 404"


def test_what_workers_say_they_offer_counts_before_what_was_known() -> None:
    route = DeploymentRoute(deployment="m/1", versions=(1,), commands=(command("old"),))
    made = table({"m/1": state(generation(4, "new"))}, route)
    assert set(by_path(made)) == {"/m/new", "/m/1/new", "/predict/m", "/predict/m/1"}


def test_while_nobody_has_said_what_is_to_be_reached_the_table_says_so() -> None:
    made = build_table(snapshot=1, routing=None, deployments={}, limits=Limits(), admin=(META,))
    assert made.starting
    assert admin_at(made) == ["/meta"]
    assert not table({}).starting


# ---- routes that people chose


def routed(*commands: str | dict[str, Any], **fields: Any) -> dict[str, CommandRoute]:
    """What stands at the port 666, where the service has its route."""
    address = RouteAddress(path="/a/extract", port=666, **fields)
    states = {"m/1": state(generation(1, *commands))}
    made = table(states, DeploymentRoute(deployment="m/1", versions=(1,)), route=address)
    assert admin_at(made, 666) == []
    assert "/a/extract" not in by_path(made)
    return by_path(made, 666)


@pytest.mark.parametrize(
    ("names", "called"),
    [(("predict",), "predict"), (("ask",), "ask"), (("a", "predict"), "predict")],
)
def test_a_route_calls_predict_or_the_only_command_and_describes_nothing(
    names: tuple[str, ...], called: str
) -> None:
    (route,) = routed(*names, methods=("GET",)).values()
    assert (route.command, route.methods, route.about) == (called, ("GET",), b"")
    assert (route.shares, route.wrapped) == ((Share("m/1"),), False)


def test_a_route_calls_nothing_where_it_could_be_one_or_the_other() -> None:
    assert routed("ask", "tell") == {}
    assert routed(command("app", wholeSite=True, withRequest=True)) == {}


def test_a_route_follows_weights_shadows_and_tokens_like_every_address() -> None:
    made = table(
        {f"m/{n}": state(generation(n, version=n)) for n in (1, 2, 3)},
        DeploymentRoute(deployment="m/1", weight=3.0),
        DeploymentRoute(deployment="m/2", weight=1.0),
        DeploymentRoute(deployment="m/3", weight=0.0, shadow=0.5),
        tokens=("t",),
        sticky=USER,
        route=RouteAddress(path="/extract"),
    )
    named, route = by_path(made)["/m/predict"], by_path(made)["/extract"]
    assert replace(named, paths=route.paths, about=b"") == route
    assert (len(route.shares), len(route.shadows), route.tokens) == (2, 1, "m")


def test_services_share_a_port_of_routes_and_an_own_port_keeps_its_names() -> None:
    def service(name: str, port: int, route: RouteAddress) -> ServiceRouting:
        only = (DeploymentRoute(deployment="m/1"),)
        return ServiceRouting(service=name, deployments=only, port=port, route=route)

    made = build_table(
        snapshot=1,
        routing=Routing(
            services=(
                service("a", 0, RouteAddress(path="/x", port=666)),
                service("b", 0, RouteAddress(path="/y", port=666)),
                service("c", 9000, RouteAddress(path="/c/predict", methods=("GET",))),
            )
        ),
        deployments={"m/1": state(generation(1))},
        limits=Limits(),
        port_admin=(META,),
    )
    assert set(by_path(made, 666)) == {"/x", "/y"}
    assert admin_at(made, 666) == []
    assert admin_at(made, 9000) == ["/meta"]
    assert [site.port for site in made.sites] == [0, 9000, 666]
    names = [path for route in made.sites[0].commands for path in route.paths]
    assert names.index("/c/predict") < len(names) - 1 - names[::-1].index("/c/predict")
    assert by_path(made)["/c/predict"].methods == ("GET", "POST"), "a name comes before a route"
