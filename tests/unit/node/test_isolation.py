"""What of the platform's folders a worker and a preparation are given."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from modelcloud.node.isolation import Isolation
from modelcloud.types import GenerationSpec

ISOLATION = Isolation(hidden=("/data", "/run/x"), envs="/data/envs", caches="/home/.cache")
SPEC = GenerationSpec(
    service="s", generation=1, version=1, target="m.py", snapshot="/data/a/1", digest="1"
)


def test_a_worker_reads_its_artifact_and_writes_to_its_own_folder() -> None:
    found = ISOLATION.of_worker(SPEC, Path("/run/x/w1"))
    assert found.hidden == ISOLATION.hidden
    assert found.readable == ("/data/a/1",)
    assert found.writable == ("/run/x/w1", "/home/.cache")


@pytest.mark.parametrize(
    ("python", "given"),
    [
        ("/data/envs/key/bin/python", ("/data/envs/key",)),
        ("/usr/bin/python3", ()),
        ("/bin/python", ()),
        ("", ()),
        ("/data/envs", ()),
        ("/data/envs/python", ()),
        ("/data/envs/../run/x/python", ()),
        ("/data/envs/key/../../run/bin/python", ()),
        ("/data/run/w2/python", ()),
    ],
)
def test_an_interpreter_gives_its_own_environment_and_no_other_folder(
    python: str, given: tuple[str, ...]
) -> None:
    found = ISOLATION.of_worker(replace(SPEC, python=python), Path("/run/x/w1"))
    assert found.readable == ("/data/a/1", *given)


def test_a_preparation_makes_environments_and_reads_the_artifact_it_checks() -> None:
    found = ISOLATION.of_preparation(SPEC, Path("/run/x/p1"))
    assert found.readable == ("/data/a/1",)
    assert found.writable == ("/data/envs", "/run/x/p1", "/home/.cache")
