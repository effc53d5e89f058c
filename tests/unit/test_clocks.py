"""Deadlines rest on the monotonic clock: setting the machine's time moves none of them."""

from __future__ import annotations

import ast
from pathlib import Path

import modelcloud

ROOT = Path(modelcloud.__file__).parent

#: What tells the time of day, and where people are told it.
WALL = {
    ("time", "time"), ("time", "time_ns"), ("time", "localtime"), ("datetime", "now"),
    ("datetime", "utcnow"), ("datetime", "today"), ("date", "today"),
}  # fmt: skip
FOR_PEOPLE = {
    "node/logs.py": "stamps of log lines",
    "dataplane/hub.py": "stamps of the access log",
    "rollout/reconciler.py": "when a rollout was accepted, started and finished",
    "control/observe/deployment_log.py": "stamps of log lines",
    "control/reconcile/reconcilers.py": "when a rollout was accepted, started and finished",
}

#: What is kept from one boot of the machine to the next has no other time: when a row was made,
#: until when a token holds, when a file was last used.
OF_WHAT_IS_KEPT = {
    "artifacts/environment.py",
    "control/access/audit.py",
    "control/access/auth.py",
    "control/access/groups.py",
    "control/access/tokens.py",
    "control/access/users.py",
    "control/bootstrap.py",
    "control/common/idempotency.py",
    "control/monitors/monitors.py",
    "control/observe/metrics_keeper.py",
    "control/services/artifacts.py",
    "control/services/services.py",
    "control/services/versions.py",
    "control/state.py",
    "monitors/publish.py",
}


def wall_clocks(source: str) -> set[str]:
    """The calls in a file that tell the time of day."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
            base = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
            if (base, node.attr) in WALL:
                found.add(f"{base}.{node.attr}")
        elif isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names if (node.module, alias.name) in WALL]
            found |= {f"{node.module}.{name}" for name in names}
    return found


def test_only_what_people_read_tells_the_time_of_day() -> None:
    using = {
        str(path.relative_to(ROOT))
        for path in ROOT.rglob("*.py")
        if wall_clocks(path.read_text("utf-8"))
    }
    assert using == OF_WHAT_IS_KEPT | set(FOR_PEOPLE)


def test_a_rollouts_wall_clock_goes_into_its_record_and_nowhere_else() -> None:
    trees = [
        ast.parse((ROOT / "rollout" / name).read_text("utf-8"))
        for name in ("reconciler.py", "loop.py")
    ]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    calls = [
        node for node in nodes
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "self._wall"
    ]  # fmt: skip
    kept = [
        node.value for node in nodes
        if (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).endswith("_at"))
        or (isinstance(node, ast.keyword) and str(node.arg).endswith("_at"))
    ]  # fmt: skip
    assert calls
    assert all(call in kept for call in calls)


def test_the_look_finds_what_it_looks_for() -> None:
    assert wall_clocks("import time\nx = time.time() + 5") == {"time.time"}
    assert wall_clocks("from time import time") == {"time.time"}
    assert wall_clocks("import datetime\ndatetime.datetime.now()") == {"datetime.now"}
    assert wall_clocks("import time\ntime.monotonic()") == set()
