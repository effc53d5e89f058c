"""What attacks on a running platform have in common: single requests, and models to run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from support.processes import rss
from support.raw import Answer, connect, get
from support.server import DEADLINE_S
from support.up import Up, up

MIB = 1024 * 1024
#: What the control plane may grow by, over all of a test (row 27).
GROWTH = 100 * MIB

#: Answers with its input.
ECHO = """
import modelcloud
from modelcloud.data_types import any

@modelcloud.command("predict", inputs={"x": any(default=0)}, outputs={"y": any})
def predict(model, inputs):
    return {"y": inputs["x"]}
"""


def ask(port: int, request: bytes, *, source: str = "127.0.0.1") -> Answer:
    """One request on a connection of its own; its status is 0 if there was no answer."""
    with connect(port, source=source) as raw:
        try:
            return raw.send(request).read(head_only=request.startswith(b"HEAD"))
        except (EOFError, ConnectionError):
            return Answer(0, {}, b"")


def bearer(token: str | None) -> str:
    """The header that presents a token."""
    return f"Authorization: Bearer {token}"


def put_online(
    up: Up, service: str, code: str, folder: Path, *, group: str, **fields: Any
) -> dict[str, Any]:
    """Register a model of this code as a service's next version and wait until it serves.

    `folder` is below a root of the platform; the version gets a folder of its own there.
    """
    place = folder / service
    place.mkdir(exist_ok=True)
    (place / "model.py").write_text(code)
    version = up.admin.register(service, path=str(place), group=group)["version"]
    begun = up.admin.deploy(service, version, **fields)
    ended = up.admin.wait(begun["rollout"]["id"], timeout_s=DEADLINE_S)
    assert ended["state"] == "succeeded", ended
    return up.admin.deployment(service, version)


def left_in(data: Path) -> dict[str, list[str]]:
    """What uploads and registrations keep on the disk."""
    return {
        name: sorted(entry.name for entry in (data / name).iterdir())
        for name in ("staging", "artifacts")
    }


class Place(NamedTuple):
    """A platform with the service `echo`, and the token of a user who may only read it.

    Attributes:
        port: of the control plane.
    """

    up: Up
    port: int
    admin: str
    reader: str


@contextmanager
def asked(folder: Path) -> Iterator[Place]:
    """A platform to ask."""
    models = folder / "models"
    models.mkdir()
    with up(folder / "data", "--root", models) as running:
        running.admin.create_group("team")
        put_online(running, "echo", ECHO, models, group="team")
        with running.user("reader") as reader:
            running.admin.share("team", "reader", "read")
            port = httpx.URL(running.api).port or 0
            yield Place(running, port, running.admin.token or "", reader.token or "")


@contextmanager
def unharmed(place: Place) -> Iterator[None]:
    """After the block the same control plane answers, has hardly grown, and predictions go on."""
    (control,) = place.up.pids("control")
    before = rss(control, peak=True)
    yield
    assert place.up.pids("control") == [control], "it ended and was started again"
    assert rss(control, peak=True) - before < GROWTH
    assert ask(place.port, get("/api/v1/session", bearer(place.admin))).status == 200
    assert place.up.predict("echo", {"x": 1}).json()["data"] == {"y": 1}


def state(place: Place) -> Any:
    """What a request could have changed."""
    admin = place.up.admin
    return (
        admin.users(), admin.groups(), admin.services(), admin.members("team"), admin.tokens(),
        admin.traffic("echo"), admin.instance_types(), len(admin.rollouts()),
    )  # fmt: skip
