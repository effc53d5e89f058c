"""The site: limits of the settings, no address of the server itself unless told."""

from __future__ import annotations

import re
from typing import Any

import pytest

from modelcloud.config import Limits, ServeConfig
from modelcloud.errors import UsageError
from modelcloud.generate.nginx import site
from modelcloud.serve.admin import ADDRESSES


def config(**settings: Any) -> ServeConfig:
    return ServeConfig(target="m.py", service="fib", **settings)


def directives(text: str) -> dict[str, str]:
    """Each directive's arguments; of one that comes twice, the last."""
    return dict(re.findall(r"^\s*([a-z_]+) (.+);$", text, re.MULTILINE))


@pytest.mark.parametrize(
    ("settings", "server"),
    [
        ({}, "127.0.0.1:8080"),
        ({"host": "0.0.0.0", "port": 81}, "127.0.0.1:81"),
        ({"host": "::1"}, "[::1]:8080"),
        ({"uds": "/run/fib/http.sock"}, "unix:/run/fib/http.sock"),
        ({"uds": '/run/a "b"/$x;}.sock'}, '"unix:/run/a \\"b\\"/$x;}.sock"'),
    ],
)
def test_the_upstream_is_the_servers_address(settings: dict[str, Any], server: str) -> None:
    assert f"    server {server};\n" in site(config(**settings))


def test_the_limits_are_those_of_the_settings() -> None:
    limits = Limits(body=123, head=456, header_timeout_s=1.5, idle_timeout_s=10, deadline_s=7)
    found = directives(site(config(limits=limits)))
    assert found["client_max_body_size"] == "123"
    assert found["large_client_header_buffers"] == "4 456"
    assert found["client_header_timeout"] == "1500ms"
    assert found["proxy_read_timeout"] == "12s"  # after the server's own 504
    (kept,) = re.findall(r"keepalive 64;\n    keepalive_timeout (\d+)s;", site(config()))
    assert int(kept) < Limits().idle_timeout_s


def test_no_request_that_may_have_reached_the_model_is_sent_twice() -> None:
    assert directives(site(config()))["proxy_next_upstream"] == "error"


def test_every_address_of_the_server_itself_is_hidden_unless_told() -> None:
    hidden = set(re.findall(r"location (\S+ \S+) \{ return 404; \}", site(config())))
    assert hidden == {
        f"^~ {a.path[:-1]}" if a.path.endswith("*") else f"= {a.path}" for a in ADDRESSES
    }
    exposed = site(config(), expose_admin=True)
    assert "return 404" not in exposed
    patience = re.search(r"location = /setup \{\s+proxy_read_timeout (\d+)s;", exposed)
    assert patience is not None
    assert int(patience[1]) > 2 * ServeConfig(target="").load_timeout_s


@pytest.mark.parametrize(
    "wrong",
    [
        {"listen": "80; evil on"},
        {"listen": ""},
        {"server_name": "a;b"},
        {"server_name": "$host"},
        {"server_name": ""},
    ],
)
def test_what_would_be_another_directive_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="accepted"):
        site(config(), **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("settings", [{"port": 0}, {"tls_cert": "c"}, {"uds": "/run/a\nb"}])
def test_a_server_that_cannot_stand_behind_a_site_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        site(config(**settings))


def test_a_web_application_keeps_its_own_pages_and_nothing_that_is_the_servers() -> None:
    text = site(config(), web_app=True)
    assert "location = / {" not in text
    assert "redoc" not in text
    for path in ("/setup", "/rollback", "/metrics", "/meta", "/rollouts"):
        assert f"location = {path} {{ return 404; }}" in text
