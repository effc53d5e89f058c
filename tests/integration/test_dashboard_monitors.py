"""Monitors, done wholly in a browser: made, tested, changed, paused; what arrives shows live."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from support.dashboard import picture, show, sign_in
from support.monitored import Folder
from support.served_folders import running
from support.up import PASSWORD, Up, up
from support.web_server import web_folder

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("dashboard")]

SECRET = "s3cret-word"


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("monitors")
    (folder / "root").mkdir()
    reaches = ("--allow-network", "127.0.0.1/32")
    with up(folder / "data", "--root", folder / "root", *reaches) as started:
        yield started


def produce(place: Folder, factor: int, code: str = "return x * {}") -> None:
    """A model that multiplies, and then the done-file."""
    text = f"def predict(x: float) -> float:\n    {code.format(factor)}\n".encode()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo("multiplier/model.py")
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text))
    place.put("multiplier.tar.gz", packed.getvalue())
    place.put("donefile", f"{factor} {code}".encode())


def test_a_monitor_is_made_and_each_version_that_arrives_shows_live(
    platform: Up, page: Page, tmp_path: Path
) -> None:
    place = Folder(tmp_path / "produced")
    platform.admin.create_service("multiplier", "admin")
    with running(web_folder(place.folder)) as server:
        url = f"http://127.0.0.1:{server.port}"
        sign_in(page, platform, at="/monitors")
        expect(page.get_by_text("No monitors yet")).to_be_visible()
        page.get_by_role("button", name="New monitor").click()
        page.get_by_role("dialog").get_by_label("Service").select_option("multiplier")
        page.get_by_role("button", name="Continue").click()
        expect(page.get_by_role("heading", name="New monitor of multiplier")).to_be_visible()

        # what is wrong stands beside its field, and what was typed stays
        page.get_by_label("Name", exact=True).fill("every day")
        page.get_by_label("Folder there").fill("/")
        page.get_by_label("Model", exact=True).fill("multiplier.tar.gz")
        page.get_by_label("Done-file").fill("donefile")
        page.get_by_label("Seconds between two looks").fill("0.1")
        page.get_by_role("button", name="Make the monitor").click()
        expect(page.locator("#field-interval-error")).to_contain_text("greater than or equal to 1")
        page.get_by_label("Seconds between two looks").fill("1")
        page.get_by_role("button", name="Make the monitor").click()
        expect(page.locator("#field-name-error")).to_contain_text("1 to 63 letters, digits")
        page.get_by_label("Name", exact=True).fill("daily")
        page.get_by_role("button", name="Make the monitor").click()
        expect(page.locator("#field-general_host-error")).to_contain_text("needs general_host")
        page.get_by_label("Host", exact=True).fill(url)
        page.get_by_label("Trusted place").fill("http://elsewhere.example")
        page.get_by_role("button", name="Make the monitor").click()
        expect(page.locator("#field-trust-error")).to_contain_text("the place itself")
        expect(page.get_by_label("Folder there")).to_have_value("/")
        expect(page.locator("#field-trust-help")).to_contain_text(f"write: {url}/")
        page.get_by_label("Trusted place").fill(f"{url}/")

        # the place can be looked at before anything is kept
        page.get_by_role("button", name="Test the connection").click()
        expect(page.get_by_text("there is no done-file donefile")).to_be_visible()
        produce(place, 2)
        page.get_by_role("button", name="Test the connection").click()
        expect(page.get_by_text("The place answers, and both are there.")).to_be_visible()
        assert platform.admin.monitors("multiplier") == []
        page.get_by_role("heading", name="New monitor").scroll_into_view_if_needed()
        picture(page, "new-monitor")
        page.get_by_label("Instance type").select_option("small")
        page.get_by_role("button", name="Make the monitor").click()

        # what arrives shows by itself: the version, its rollout, and why one was not taken
        expect(page.get_by_role("heading", name="Monitor daily")).to_be_visible()
        first = page.get_by_role("row", name=re.compile("registered 1 "))
        expect(first).to_contain_text("succeeded")
        answer = platform.predict("multiplier", {"x": 3})
        assert answer.json()["data"] == {"result": 6}
        produce(place, 5)
        second = page.get_by_role("row", name=re.compile("registered 2 "))
        expect(second).to_contain_text("succeeded")
        assert platform.predict("multiplier", {"x": 3}).json()["data"] == {"result": 15}
        produce(place, 7, code="return x * {}x")
        expect(page.get_by_role("row", name=re.compile("failed"))).to_contain_text(
            "cannot be served"
        )
        expect(page.locator(".title .badge")).to_have_text("failed")
        assert platform.predict("multiplier", {"x": 3}).json()["data"] == {"result": 15}

        # pause, resume, look now
        produce(place, 9)
        expect(page.get_by_role("row", name=re.compile("registered 3 "))).to_contain_text(
            "succeeded"
        )
        expect(page.locator(".title .badge")).to_have_text("waiting")
        picture(page, "monitor")
        page.get_by_role("button", name="Pause").click()
        expect(page.locator(".title .badge")).to_have_text("paused")
        page.get_by_role("button", name="Resume").click()
        expect(page.locator(".title .badge")).to_have_text("waiting")
        page.get_by_role("button", name="Look now").click()
        expect(page.get_by_text("It looks now")).to_be_visible()

        # it is among those of the service and of the platform
        show(page, platform, "/services/multiplier")
        page.get_by_role("navigation", name="Parts of").get_by_role("link", name="Monitors").click()
        expect(page.get_by_role("row", name=re.compile("daily.*127.0.0.1"))).to_be_visible()
        show(page, platform, "/monitors")
        page.get_by_role("row", name=re.compile("daily.*multiplier")).get_by_role(
            "link", name="daily"
        ).click()

        # change, and delete
        page.get_by_role("link", name="Edit").click()
        page.get_by_label("Seconds between two looks").fill("3600")
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_text("3600 s")).to_be_visible()
        page.get_by_role("button", name="Delete").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        expect(page.get_by_text("No monitors yet")).to_be_visible()
        assert platform.admin.monitors("multiplier") == []
        assert len(platform.admin.versions("multiplier")) == 3


def test_credentials_are_kept_and_never_shown_again(platform: Up, page: Page) -> None:
    platform.admin.create_service("secretive", "admin")
    sign_in(page, platform, at="/services/secretive/new-monitor")
    page.get_by_label("Name", exact=True).fill("daily")
    page.get_by_label("Kind of place").select_option("ftp")
    expect(page.locator("#field-ftp_host")).to_be_visible()
    page.get_by_label("Host", exact=True).fill("127.0.0.1")
    page.get_by_label("Port").fill("9")
    page.get_by_label("User", exact=True).fill("ann")
    page.get_by_label("Password").fill(SECRET)
    page.get_by_label("Folder there").fill("/daily")
    page.get_by_label("Model", exact=True).fill("m.tar")
    page.get_by_label("Done-file").fill("done")
    page.get_by_label("Instance type").select_option("small")
    page.get_by_role("button", name="Make the monitor").click()
    expect(page.get_by_text("kept encrypted; shown to nobody")).to_be_visible()
    assert platform.admin.monitor("secretive", "daily")["secrets"] == ["ftp_password"]
    page.get_by_role("link", name="Edit").click()
    expect(page.locator("#field-ftp_password-help")).to_contain_text("One is kept")
    expect(page.get_by_label("Password")).to_have_value("")
    assert SECRET not in page.content()

    # other settings leave it; another place drops it
    page.get_by_label("Newest versions that stay").fill("5")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", name="Monitor daily")).to_be_visible()
    found = platform.admin.monitor("secretive", "daily")
    assert (found["settings"]["keep"], found["secrets"]) == (5, ["ftp_password"])
    page.get_by_role("link", name="Edit").click()
    page.get_by_label("Kind of place").select_option("url")
    expect(page.locator("#field-ftp_host")).to_have_count(0)
    page.get_by_label("Folder there").fill("http://127.0.0.1:9/models")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", name="Monitor daily")).to_be_visible()
    found = platform.admin.monitor("secretive", "daily")
    assert (found["place"], found["secrets"]) == ("http://127.0.0.1:9/models", [])
    platform.admin.delete_service("secretive")


def test_who_may_only_read_sees_a_monitor_and_can_do_nothing_to_it(
    platform: Up, page: Page
) -> None:
    admin = platform.admin
    admin.create_user("ada", PASSWORD)
    admin.create_user("ben", PASSWORD)
    admin.create_group("watched", "")
    admin.share("watched", "ada", "read")
    admin.create_service("seen", "watched")
    admin.create_monitor(
        "seen", "nightly", type="local", remote_path=str(platform.data.parent / "root"),
        remote_model_name="m.tar", remote_donefile_name="done", paused=True,
        deploy={"instance_type": "small"},
    )  # fmt: skip
    sign_in(page, platform, "ada", at="/services/seen/monitors/nightly")
    expect(page.get_by_text("no; model files only")).to_be_visible()
    expect(page.locator("#main button, #main .button")).to_have_count(0)
    for at in ("/services/seen/new-monitor", "/services/seen/monitors/nightly/edit"):
        show(page, platform, at)
        expect(page.get_by_text("Not for you")).to_be_visible()
        expect(page.locator("#main form")).to_have_count(0)
    show(page, platform, "/monitors")
    expect(page.get_by_role("row", name=re.compile("nightly.*seen"))).to_be_visible()
    page.context.clear_cookies()
    sign_in(page, platform, "ben", at="/monitors")
    expect(page.get_by_text("No monitors yet")).to_be_visible()
    show(page, platform, "/services/seen/monitors/nightly")
    expect(page.get_by_role("heading", name="Not found")).to_be_visible()
