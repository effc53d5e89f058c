"""What a lab is told, and what it finds around it."""

from __future__ import annotations

from modelcloud.dataplane.confinement import Confinement
from modelcloud.workspaces.enter import Lab, environment, settings

LAB = Lab(
    files="/data/workspaces/1-2",
    own="/run/ws/own",
    socket="/run/ws/s/s",
    base="/w/abc/",
    token="the token",
    confinement=Confinement(),
    environment={"PATH": "/usr/bin", "LANG": "C.UTF-8"},
)


def test_it_listens_on_its_socket_alone_and_knows_its_token() -> None:
    told = settings(LAB, root=False)
    server = told["ServerApp"]
    assert (server["sock"], server["sock_mode"]) == ("/run/ws/s/s", "0600")
    assert (server["root_dir"], server["base_url"]) == (LAB.files, "/w/abc/")
    assert "port" not in server
    assert server["allow_root"] is False
    assert told["IdentityProvider"] == {"token": "the token"}


def test_its_folders_are_its_own_and_its_token_is_in_no_variable() -> None:
    found = environment(LAB)
    assert found["HOME"] == "/run/ws/own"
    assert {name for name, value in found.items() if "the token" in value} == set()
    assert all(
        value.startswith("/run/ws/own/")
        for name, value in found.items()
        if name.startswith("JUPYTER_") and name.endswith("_DIR")
    )
    assert found["PIP_TARGET"] == "/data/workspaces/1-2/.packages"
    assert found["PATH"].endswith(":/usr/bin")
