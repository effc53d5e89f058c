"""`modelcloud.run()` in a real Jupyter kernel: serve, ask, update by running again, stop."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import httpx
import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError

from support.server import wait_for

KERNEL_TIMEOUT_S = 120

DECLARE = """
import modelcloud
from modelcloud.data_types import number

FACTOR = 2

@modelcloud.setup(options={"plus": number(default=0)})
def setup(options):
    return options["plus"]

@modelcloud.command("scale", inputs={"x": number}, outputs={"y": number})
def scale(model, inputs):
    return FACTOR * inputs["x"] + model
"""

ASK = """
import json, urllib.request

def ask(x):
    request = urllib.request.Request(
        handle.url + "/scale",
        json.dumps({"x": x}).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)["y"]

def say(**facts):
    print("SAY", json.dumps(facts))
"""

Execute = Callable[..., dict[str, Any]]


@pytest.fixture
def execute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Execute:
    """Run cells in a kernel of its own; returns the facts they said."""
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    def execute(*cells: str) -> dict[str, Any]:
        notebook = nbformat.from_dict(  # type: ignore[no-untyped-call]
            {
                "nbformat": 4,
                "nbformat_minor": 5,
                "metadata": {},
                "cells": [
                    {
                        "cell_type": "code", "id": f"cell-{number}", "metadata": {}, "outputs": [],
                        "execution_count": None, "source": dedent(cell),
                    }
                    for number, cell in enumerate(cells)
                ],
            }
        )  # fmt: skip
        client = NotebookClient(
            notebook,
            timeout=KERNEL_TIMEOUT_S,
            kernel_name="python3",
            resources={"metadata": {"path": str(tmp_path)}},
        )
        client.execute()
        facts: dict[str, Any] = {}
        for cell in notebook.cells:
            for output in cell.outputs:
                for line in output.get("text", "").splitlines():
                    if line.startswith("SAY "):
                        facts.update(json.loads(line.removeprefix("SAY ")))
        return facts

    return execute


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
    return number


def test_a_notebook_serves_updates_and_stops_its_functions(execute: Execute, port: int) -> None:
    run = f"handle = modelcloud.run(port={port}, workers=1, model_options={{'plus': 1}})"
    facts = execute(
        DECLARE,
        run,
        ASK,
        "say(first=ask(10), url=handle.url, shown=repr(handle))",
        "handle.update(plus=5)\nsay(updated=ask(10))",
        # Running the cells again, changed, is a live update with the new functions.
        DECLARE.replace("FACTOR = 2", "FACTOR = 3"),
        f"before = handle\n{run}\nsay(again=ask(10), same=handle is before)",
        "handle.stop()\nsay(stopped=repr(handle))",
    )
    url = f"http://127.0.0.1:{port}"
    assert facts == {
        "first": 21,
        "url": url,
        "shown": f"<modelcloud serving at {url}>",
        "updated": 25,
        "again": 31,
        "same": True,
        "stopped": f"<modelcloud stopped, was at {url}>",
    }
    assert not answers(url)


def test_a_model_that_does_not_come_up_is_an_error_in_the_cell(execute: Execute, port: int) -> None:
    facts = execute(
        DECLARE.replace('return options["plus"]', 'raise OSError("no weights here")'),
        f"""
        try:
            modelcloud.run(port={port}, workers=1)
        except modelcloud.errors.ModelLoadError as error:
            message = error.message
        """,
        ASK,
        "say(told='no weights here' in message)",
    )
    assert facts == {"told": True}
    assert not answers(f"http://127.0.0.1:{port}")


def test_the_server_ends_with_its_kernel(execute: Execute) -> None:
    facts = execute(
        DECLARE, "handle = modelcloud.run(port=0, workers=1)", ASK, "say(y=ask(1), url=handle.url)"
    )
    assert facts["y"] == 2
    assert not answers(facts["url"])


def test_the_server_ends_with_a_kernel_that_is_killed(execute: Execute, port: int) -> None:
    with pytest.raises(DeadKernelError):
        execute(
            DECLARE,
            f"modelcloud.run(port={port}, workers=1)",
            "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
        )
    wait_for("the end of the server", lambda: not answers(f"http://127.0.0.1:{port}"))


def answers(url: str) -> bool:
    try:
        httpx.get(f"{url}/healthz")
    except httpx.TransportError:
        return False
    return True
