"""Imports go down only. Every import counts, those inside functions too."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import modelcloud

SOURCE = Path(modelcloud.__file__).parent

#: From the top to the bottom. A module may import its own part and any part further down; parts
#: of one line know nothing of each other.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("monitor",),
    ("cli", "dashboard"),
    ("launch", "packages"),
    ("platform",),
    ("client", "data_types", "generate"),
    ("control",),
    ("serve",),
    ("rollout",),
    ("engines", "monitors", "workspaces"),
    ("node",),
    ("dataplane",),
    ("codecs",),
    ("sdk", "artifacts", "store"),
    ("runtimes",),
    ("config",),
    ("errors", "types", "waiting", "_version"),
)
RANK = {part: -depth for depth, parts in enumerate(LAYERS) for part in parts}

#: Likewise inside the control plane.
CONTROL_LAYERS: tuple[tuple[str, ...], ...] = (
    ("main",),
    ("app", "data_plane", "sweep"),
    ("api", "service_subject"),
    ("workspaces",),
    ("commands", "monitors", "web", "bootstrap"),
    ("identity",),
    ("reconcile", "resources", "observe"),
    ("services",),
    ("deployments",),
    ("access",),
    ("common", "state"),
)
CONTROL_RANK = {part: -depth for depth, parts in enumerate(CONTROL_LAYERS) for part in parts}

#: Decisions on plain data: of this package they may import these parts only.
PURE = {
    "rollout.canary", "rollout.counts", "rollout.decision", "rollout.going_back",
    "rollout.in_place", "rollout.policy", "rollout.records", "rollout.snapshot",
    "rollout.wishes",
    "packages.ini", "packages.values", "packages.conf", "packages.plan",
}  # fmt: skip
PURE_MAY_IMPORT = {"types", "errors", "dataplane.paths", "serve.setup_body", *PURE}

#: What belongs to the edges of the program and never to the parts that carry predictions.
EDGE_LIBRARIES = {
    "aiohttp", "alembic", "click", "django", "fastapi", "flask", "httpx", "prometheus_client",
    "pydantic", "requests", "rich", "sqlalchemy", "sqlite3", "starlette", "typer", "uvicorn",
}  # fmt: skip
CARRIES_PREDICTIONS = {
    "sdk", "codecs", "artifacts", "runtimes", "dataplane", "node", "engines",
}  # fmt: skip

#: Ray Serve hands its replicas starlette's requests, and takes starlette's answers.
MAY_IMPORT = {"engines.ray": {"starlette"}}

#: A worker runs in the environment of its model, which holds little beside.
WORKER_SIDE = (
    "sdk",
    "codecs",
    "runtimes",
    "dataplane.worker",
    "dataplane.batching",
    "dataplane.frames",
    "packages.check_process",
)
WORKER_LIBRARIES = {"msgspec"}
WORKER_LIBRARIES_WHEN_USED = {"cloudpickle", "numpy", "PIL", "uvloop"}
#: Each in the one file that loads its models, inside its functions.
RUNTIME_LIBRARIES = {
    "runtimes.lightgbm": {"lightgbm"},
    "runtimes.mlflow": {"mlflow", "pandas"},
    "runtimes.onnx": {"onnxruntime"},
    "runtimes.paddle": {"paddle"},
    "runtimes.sklearn": {"joblib", "pandas", "skops", "sklearn"},
    "runtimes.tensorflow": {"tensorflow"},
    "runtimes.torch": {"torch"},
    "runtimes.xgboost": {"xgboost"},
}

#: Heavy; only inside the functions that use them.
NEVER_AT_MODULE_LEVEL = {"numpy", "PIL"}


class Import(NamedTuple):
    """One imported name, as a dotted path; `lazy` if importing the module does not run it."""

    path: str
    line: int
    lazy: bool

    @property
    def root(self) -> str:
        return self.path.split(".")[0]


def imports_of(source: str, package: str) -> Iterator[Import]:
    """Every import of a module of `package`, relative ones and `import_module("…")` resolved."""

    def visit(node: ast.AST, lazy: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for name in node.names:
                yield Import(name.name, node.lineno, lazy)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: -(node.level - 1) or None]
                base = ".".join([*above, base] if base else above)
            for name in node.names:
                yield Import(f"{base}.{name.name}", node.lineno, lazy)
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).split(".")[-1] in {"import_module", "__import__"}
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            yield Import(str(node.args[0].value), node.lineno, lazy)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            lazy = True
        lazy = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, lazy)

    return visit(ast.parse(source), lazy=False)


def violations(module: str, source: str, package: str | None = None) -> Iterator[str]:
    """What `module` (dotted, without the leading `modelcloud.`) imports against the rules."""
    part = module.split(".", maxsplit=1)[0]
    if part not in RANK:
        yield f"1: {part} stands in no layer; give it one in test_layers.py"
        return
    worker_side = any(_is_in(module, side) for side in WORKER_SIDE)
    package = package or f"modelcloud.{module}".rpartition(".")[0]
    for found in imports_of(source, package):
        if found.root == "modelcloud":
            target = found.path.partition(".")[2]
            other = target.split(".")[0]
            if module in PURE and not any(_is_in(target, allowed) for allowed in PURE_MAY_IMPORT):
                yield f"{found.line}: {module} decides on plain data, yet imports {found.path}"
            elif other in RANK and other != part and RANK[other] >= RANK[part]:
                yield f"{found.line}: {part} imports {found.path}, which is no layer below it"
            elif other == part == "control":
                yield from _control_violation(module, target, found)
            continue
        if part in CARRIES_PREDICTIONS and found.root in EDGE_LIBRARIES - MAY_IMPORT.get(
            module, set()
        ):
            yield f"{found.line}: {part} imports {found.root}"
        if found.root == "ray" and not module.startswith("engines.ray"):
            yield f"{found.line}: ray outside engines.ray"
        if found.root in NEVER_AT_MODULE_LEVEL and not found.lazy:
            yield f"{found.line}: {found.root} at module level"
        if worker_side and found.root not in sys.stdlib_module_names:
            allowed = set(WORKER_LIBRARIES)
            if found.lazy:
                allowed |= WORKER_LIBRARIES_WHEN_USED | RUNTIME_LIBRARIES.get(module, set())
            if found.root not in allowed:
                yield f"{found.line}: the worker side imports {found.root}"


def _control_violation(module: str, target: str, found: Import) -> Iterator[str]:
    """What a part of the control plane imports of another one against their order."""
    part, other = (path.split(".")[1] for path in (module, target))
    if part not in CONTROL_RANK:
        yield f"{found.line}: control.{part} stands in no layer; give it one in test_layers.py"
    elif other != part and CONTROL_RANK.get(other, 0) >= CONTROL_RANK[part]:
        yield f"{found.line}: control.{part} imports {found.path}, which is no layer below it"


def _is_in(module: str, part: str) -> bool:
    return module == part or module.startswith(f"{part}.")


def modules() -> Iterator[tuple[Path, str, str]]:
    """File, dotted name below `modelcloud`, and the package it stands in, of every module."""
    for file in sorted(SOURCE.rglob("*.py")):
        parts = file.relative_to(SOURCE).with_suffix("").parts
        package = ".".join(["modelcloud", *parts[:-1]])
        if parts[-1] == "__init__":
            parts = parts[:-1]
        if parts:  # `modelcloud` itself names its public functions, wherever they live
            yield file, ".".join(parts), package


def test_every_import_of_the_package_keeps_the_rules() -> None:
    broken = [
        f"{file.relative_to(SOURCE.parent)}:{violation}"
        for file, module, package in modules()
        for violation in violations(module, file.read_text("utf-8"), package)
    ]
    assert not broken, "\n" + "\n".join(broken)


@pytest.mark.parametrize(
    ("module", "source", "violation"),
    [
        ("node.supervisor", "from modelcloud.serve import app", "1: node imports"),
        ("node.supervisor", "from modelcloud import serve", "1: node imports"),
        ("node.supervisor", "from .. import serve", "1: node imports"),
        ("node.supervisor", "\nfrom ..rollout.policy import decide", "2: node imports"),
        ("sdk.loader", "def f():\n    import modelcloud.node.logs", "2: sdk imports"),
        ("sdk.loader", "from importlib import import_module as i\nimport_module('modelcloud.cli')",
         "2: sdk imports"),
        ("sdk.loader", "import modelcloud.artifacts", "1: sdk imports"),
        ("rollout.policy", "from modelcloud.engines.base import Engine", "1: rollout.policy"),
        ("rollout.policy", "from modelcloud.rollout.reconciler import x", "1: rollout.policy"),
        ("dataplane.http", "if TYPE_CHECKING:\n    import httpx", "2: dataplane imports httpx"),
        ("artifacts.stage", "async def f():\n    import sqlite3", "2: artifacts imports sqlite3"),
        ("serve.app", "def f():\n    import ray", "2: ray outside"),
        ("serve.app", "import numpy as np", "1: numpy at module level"),
        ("sdk.data_types.image", "from PIL import Image", "1: PIL at module level"),
        ("codecs.native", "def f():\n    import rich", "2: the worker side imports rich"),
        ("dataplane.worker", "import uvloop", "1: the worker side imports uvloop"),
        ("plugins.new", "", "1: plugins stands in no layer"),
        ("runtimes.onnx", "import onnxruntime", "1: the worker side imports onnxruntime"),
        ("runtimes.model", "def f():\n    import torch", "2: the worker side imports torch"),
        ("runtimes.torch", "from modelcloud.sdk import contract", "1: runtimes imports"),
        ("control.access.auth", "from modelcloud.control.services import versions",
         "1: control.access imports"),
        ("control.services.uploads", "from modelcloud.control.reconcile import journal",
         "1: control.services imports"),
        ("control.new", "from modelcloud.control.common import paging", "1: control.new stands"),
    ],
)  # fmt: skip
def test_a_violating_import_is_caught_with_its_line(
    module: str, source: str, violation: str
) -> None:
    assert any(found.startswith(violation) for found in violations(module, source))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("cli.update", "from modelcloud.client import Client"),
        ("serve.app", "from modelcloud.rollout import policy\nfrom . import admin"),
        ("control.api.logs", "from modelcloud.control.observe import log_files"),
        ("rollout.policy", "from modelcloud.types import State\nfrom .records import Rollout"),
        ("codecs.native", "from modelcloud.sdk.contract import Backend"),
        ("sdk.data_types.image", "def f():\n    import numpy\n    from PIL import Image"),
        ("engines.ray.engine", "import ray"),
        ("runtimes.torch", "def f():\n    import torch"),
        ("dataplane.worker", "import msgspec, asyncio\nfrom modelcloud import __version__"),
    ],
)
def test_an_import_that_keeps_the_rules_is_not_caught(module: str, source: str) -> None:
    assert list(violations(module, source)) == []


@pytest.mark.parametrize(
    ("module", "never"),
    [
        ("modelcloud", {"msgspec", "httpx", "typer", "rich", "numpy", "asyncio"}),
        ("modelcloud.cli.main", {"httpx", "rich", "numpy", "asyncio"}),
        ("modelcloud.dataplane.worker", EDGE_LIBRARIES | {"numpy", "PIL"}),
        ("modelcloud.dataplane.gateway", EDGE_LIBRARIES | {"numpy", "PIL"}),
    ],
)
def test_starting_a_process_loads_nothing_that_it_does_not_need(
    module: str, never: set[str]
) -> None:
    program = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert not never & set(loaded.stdout.split())
