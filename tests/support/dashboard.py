"""The platform's pages in a real browser, signed in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import expect

from support.up import PASSWORD, Up

if TYPE_CHECKING:
    from playwright.sync_api import Page


#: Pictures of pages are put here, where one is named.
PICTURES = os.environ.get("MODELCLOUD_SCREENSHOTS", "")


def picture(page: Page, name: str) -> None:
    """Keep how the page looks now, for the documentation and for eyes."""
    if PICTURES:
        page.screenshot(path=Path(PICTURES) / f"{name}.png", animations="disabled")


def sign_in(page: Page, up: Up, user: str = "admin", at: str = "/") -> None:
    """Go to a page as somebody who signs in on the way."""
    page.goto(f"{up.api}{at}")
    page.get_by_label("User").fill(user)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("#main h1")).to_be_visible()


def show(page: Page, up: Up, at: str) -> None:
    """Go to another page of who is signed in."""
    page.goto(f"{up.api}{at}")
    expect(page.locator("#main h1")).to_be_visible()
