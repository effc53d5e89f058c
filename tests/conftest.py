"""Fixtures that any test may ask for."""

from __future__ import annotations

import pytest

from support.programs import program


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium that Playwright can drive (`executable_path`)."""
    return program("chromium", "chromium-browser", "google-chrome")
