"""A whole control plane over a node in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.platform import PlatformRig
from support.stores import Databases


@pytest.fixture
def platform(databases: Databases, tmp_path: Path) -> Iterator[PlatformRig]:
    with PlatformRig(databases.sqlite(tmp_path)) as made:
        yield made
