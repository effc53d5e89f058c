"""The life of packages and their conf.ini, step by step and under load, whatever the engine.

What the fifth seed asks for in its steps 2 to 7, by the commands that a user types.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path

from support.load import Load, failures, steady
from support.packages import TELLS, Folder
from support.up import Up

OLD, NEW = "six==1.16.0\n", "six==1.17.0\n"
CONF = """[MODEL SERVE]
port = {port}

[algopkg.Faces]
backend = Teller
model = v1.txt
replicas = 1
gpu_cost = 0
route = extract
method = GET

[algopkg.Plates]
backend = Teller
replicas = 1
route = plates/read
method = GET
"""


def laid_out(root: Path, running: Up) -> Folder:
    """Two packages whose requirements exclude each other; nothing of them is applied yet."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    found = Folder(root, running, port)
    found.package("Faces", OLD)
    found.package("Plates", NEW)
    for version in ("v1", "v2"):
        (root / "Model_ZOO" / f"{version}.txt").write_text(version)
    found.conf = CONF.format(port=port)
    return found


def asked(folder: Folder, route: str) -> Load:
    """Load at a route, as the seed asks: GET with JSON in the body."""
    running = Load(folder.port, f"/{route}", {"x": 1}, rate=50.0, method="GET")
    running.start()
    return running


def live_through(folder: Folder) -> None:
    """Check, apply, call, change in every way, take away and bring back: no request fails."""
    for name, version in (("Faces", "1.16.0"), ("Plates", "1.17.0")):
        said = folder.done("check", f"algopkg/{name}", "--params", '{"x": 3}')
        assert f'"six": "{version}"' in said
        assert '"scaled": 3' in said
    assert folder.done("apply", "--dry-run").split() == [
        "+", "Faces", "1", "of", "Teller", "at", "/extract",
        "+", "Plates", "1", "of", "Teller", "at", "/plates/read",
    ]  # fmt: skip
    folder.done("apply")
    assert folder.ask("extract", 2)["six"] == "1.16.0"
    assert folder.ask("plates/read", 2)["six"] == "1.17.0"
    assert '"scaled": 2' in folder.done(
        "call", f"http://127.0.0.1:{folder.port}/extract", "--params", '{"x": 2}'
    )
    with ExitStack() as loads:
        faces, plates = (asked(folder, route) for route in ("extract", "plates/read"))
        loads.callback(faces.finish)
        loads.callback(plates.finish)
        steady(faces)
        changes_of_every_kind(folder)
        plates.finish()  # before its section is taken away
        whole = folder.conf
        folder.conf = whole.replace("\n[algopkg.Plates]", "\n#[algopkg.Plates]").replace(
            "backend = Teller\nreplicas = 1\nroute = plates/read\nmethod = GET",
            "#backend = Teller\n#replicas = 1\n#route = plates/read\n#method = GET",
        )
        assert "Plates" in folder.done("apply")
        assert folder.status("plates/read") == 404
        folder.conf = whole
        folder.done("apply")
        assert folder.ask("plates/read")["six"] == "1.17.0"
        steady(faces)
    assert len(plates.samples) > 100
    assert failures(plates.samples) == []
    assert failures(faces.samples) == []
    assert {sample.answer for sample in faces.samples} == {1}  # `status` of each


def changes_of_every_kind(folder: Folder) -> None:
    """One after the other, each applied, and each seen in the answers."""
    admin = folder.up.admin
    folder.edit("replicas = 1\ngpu_cost = 0", "replicas = 2\ngpu_cost = 0")
    folder.done("apply")
    pids = folder.pids("extract", 2)
    generation = admin.deployment("Faces", 1)["current"]["generation"]

    folder.edit("route = extract", 'route = extract\nuser_config = {"scale": 10}')
    folder.done("apply")
    assert folder.ask("extract")["scaled"] == 10
    now = admin.deployment("Faces", 1)
    assert folder.pids("extract", 2) == pids
    assert now["current"]["generation"] == generation

    folder.edit("model = v1.txt", "model = v1.txt, v2.txt")
    folder.done("apply")
    answer = folder.ask("extract")
    assert (answer["models"], answer["scaled"]) == (["v1", "v2"], 10)
    assert answer["pid"] not in pids

    (folder.root / "Model_ZOO" / "v2.txt").write_text("v2 again")
    folder.done("apply")
    assert folder.ask("extract")["models"] == ["v1", "v2 again"]

    backend = folder.root / "algopkg" / "Faces" / "backend.py"
    backend.write_text(TELLS.replace('param_dict["x"] *', '100 * param_dict["x"] *'))
    folder.done("apply")
    assert folder.ask("extract")["scaled"] == 1000

    rollouts = len(admin.rollouts(1000))
    revision = admin.service("Faces")["revision"]
    said = folder.done("apply")
    assert said.split() == ["=", "Faces", "as", "it", "is", "=", "Plates", "as", "it", "is"]
    assert len(admin.rollouts(1000)) == rollouts
    assert admin.service("Faces")["revision"] == revision
