"""Programs of the system that a test drives."""

from __future__ import annotations

import os
import shutil

import pytest


def program(*names: str) -> str:
    """Path of the first of these programs that is installed.

    Without one the test is skipped on a developer's machine and fails in CI, where
    `scripts/install-system-packages` installs it: a test that never ran must not look passed.
    """
    for name in names:
        if path := shutil.which(name):
            return path
    reason = f"{names[0]} is not installed; run scripts/install-system-packages"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
