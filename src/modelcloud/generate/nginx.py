"""An nginx site in front of a server: the same limits, and no way round its access rules.

Must never: replay a request that may have reached the model, or pass on an address that changes
the server unless told to.
"""

from __future__ import annotations

import re

from modelcloud.config import ServeConfig
from modelcloud.errors import UsageError
from modelcloud.serve.admin import ADDRESSES, longest_rollout_s
from modelcloud.serve.console import url_of

#: Over the server's own deadline, so that clients see its 504 and not the proxy's.
GRACE_S = 5.0
CONNECT_S = 5.0
#: Idle connections to the server that each nginx process keeps.
KEPT = 64
#: nginx closes an idle connection well before the server does: a request never meets one that is
#: just being closed, which a POST could not be sent again after.
_IDLE_SHARE = 0.8


def site(
    config: ServeConfig,
    *,
    listen: str = "80",
    server_name: str = "_",
    expose_admin: bool = False,
    web_app: bool = False,
) -> str:
    """Return the text of the site, for the http context (`sites-enabled/`, `conf.d/`).

    Args:
        config: checked settings of the server behind it.
        listen: what nginx's `listen` takes: a port or an address with one.
        server_name: names that it answers for, separated by spaces.
        web_app: what is served is a web application, to which some addresses are left.
        expose_admin: pass on `/setup`, `/meta`, `/metrics` and the like.

    Raises:
        UsageError: something that no site can hold, or a server that cannot stand behind one.
    """
    if config.tls_cert:
        raise UsageError("behind nginx the server speaks plain HTTP; leave --tls-cert to nginx")
    if not config.uds and config.port == 0:
        raise UsageError("port 0 is another one at each start; accepted here: a port, or --uds")
    if not re.fullmatch(r"[A-Za-z0-9.:\[\]]+", listen):
        raise UsageError(f"listen: got {listen!r}; accepted: a port, or an address with one")
    if not re.fullmatch(r"[A-Za-z0-9._*-]+( [A-Za-z0-9._*-]+)*", server_name):
        raise UsageError(f"server_name: got {server_name!r}; accepted: names, `*.name` or _")
    limits = config.limits
    name = "modelcloud_" + re.sub(r"[^A-Za-z0-9_]", "_", config.service)
    address = url_of(config).removeprefix("http://")
    answer_s = limits.deadline_s + GRACE_S
    lines = [
        "# Written by `modelcloud generate nginx`.",
        f"upstream {name} {{",
        f"    server {_quoted(address)};",
        f"    keepalive {KEPT};",
        f"    keepalive_timeout {_time(limits.idle_timeout_s * _IDLE_SHARE)};",
        "}",
        "",
        "server {",
        f"    listen {listen};",
        f"    server_name {server_name};",
        "",
        "    # The server's own limits.",
        f"    client_max_body_size {limits.body};",
        f"    large_client_header_buffers 4 {limits.head};",
        f"    client_header_timeout {_time(limits.header_timeout_s)};",
        f"    client_body_timeout {_time(limits.header_timeout_s)};",
        f"    keepalive_timeout {_time(limits.idle_timeout_s)};",
        f"    proxy_connect_timeout {_time(CONNECT_S)};",
        f"    proxy_send_timeout {_time(answer_s)};",
        f"    proxy_read_timeout {_time(answer_s)};",
        "",
        "    # Kept connections to the server.",
        "    proxy_http_version 1.1;",
        '    proxy_set_header Connection "";',
        "    # Host as the browser has it, which a page's Origin is compared with. The others tell",
        "    # the server that this came through a proxy, and it does not trust such a client.",
        "    proxy_set_header Host $http_host;",
        "    proxy_set_header X-Real-IP $remote_addr;",
        "    proxy_set_header X-Forwarded-For $remote_addr;",
        "    proxy_set_header X-Forwarded-Proto $scheme;",
        "    proxy_set_header X-Forwarded-Host $http_host;",
        '    proxy_set_header Forwarded "";',
        "    # A request that failed before it was sent is sent again, and so is a GET or HEAD; a",
        "    # POST that the server may have seen is not.",
        "    proxy_next_upstream error;",
        "    # Answers are buffered for slow clients, but for event streams: the server marks them",
        "    # with X-Accel-Buffering.",
        "    proxy_buffering on;",
        "",
        "    location / {",
        f"        proxy_pass http://{name};",
        "    }",
        *(_exposed(name, longest_rollout_s(config)) if expose_admin else _hidden(web_app)),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _hidden(web_app: bool) -> list[str]:
    out = [
        "",
        "    # What reads or changes the server itself is for this machine.",
        "    # `modelcloud generate nginx --expose-admin` passes it on.",
    ]
    paths = sorted({own.path for own in ADDRESSES if not (web_app and own.yields)})
    return out + [f"    location {_location(path)} {{ return 404; }}" for path in paths]


def _exposed(upstream: str, longest_s: float) -> list[str]:
    changes = sorted({address.path for address in ADDRESSES if address.method == "POST"})
    out = [
        "",
        "    # An update answers when it is done. From here it needs the admin token.",
    ]
    for path in changes:
        out += [
            f"    location = {path} {{",
            f"        proxy_read_timeout {_time(longest_s + GRACE_S)};",
            f"        proxy_pass http://{upstream};",
            "    }",
        ]
    return out


def _location(path: str) -> str:
    return f"^~ {path[:-1]}" if path.endswith("/*") else f"= {path}"


def _quoted(text: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9_.:/\[\]@+-]+", text):
        return text
    if not text.isprintable():
        raise UsageError(f"{text!r} holds a control character, which cannot stand in a site")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _time(seconds: float) -> str:
    return f"{seconds:.0f}s" if seconds == int(seconds) else f"{max(round(seconds * 1000), 1)}ms"
