"""A control plane to ask."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.control import ControlRig
    from support.platform import PlatformRig
    from support.stores import Databases


@pytest.fixture
def rig(databases: Databases, tmp_path: Path) -> Iterator[ControlRig]:
    """The application over an empty store."""
    from modelcloud.store.store import Store
    from support.control import ControlRig

    with ControlRig(Store(databases.sqlite(tmp_path))) as made:
        yield made


@pytest.fixture
def platform(databases: Databases, tmp_path: Path) -> Iterator[PlatformRig]:
    """A whole control plane over a node in memory."""
    from support.platform import PlatformRig

    with PlatformRig(databases.sqlite(tmp_path)) as made:
        yield made
