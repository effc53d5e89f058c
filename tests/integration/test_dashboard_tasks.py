"""What people do with the platform, done wholly in a browser."""

from __future__ import annotations

import io
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from support.dashboard import picture, show, sign_in
from support.load import failures, load
from support.server import wait_for
from support.up import PASSWORD, Up, up

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("dashboard")]

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("tasks")
    shutil.copytree(EXAMPLES / "m261", folder / "m261")
    shutil.copytree(EXAMPLES / "fib", folder / "fib")
    with up(folder / "data", "--root", folder) as running:
        yield running


def archive(folder: Path, **changed: str) -> bytes:
    """A zip of a folder, with some files otherwise."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as made:
        for file in sorted(folder.iterdir()):
            if file.is_file():
                text = changed.get(file.stem, file.read_text("utf-8"))
                made.writestr(file.name, text)
    return packed.getvalue()


def send(page: Page, name: str, body: bytes) -> None:
    """Choose a file to upload, and wait until it is there."""
    file: Any = {"name": name, "mimeType": "application/zip", "buffer": body}
    page.get_by_label("Archive of the model folder").set_input_files(file)


def test_a_model_is_registered_deployed_tried_updated_and_taken_back(
    platform: Up, page: Page
) -> None:
    sign_in(page, platform, at="/services")
    expect(page.get_by_text("No services yet")).to_be_visible()
    page.get_by_role("link", name="Register a model").first.click()

    # what is wrong is shown beside its field, and what was typed stays
    page.get_by_label("Service name").fill("no name")
    page.get_by_role("button", name="Check it").click()
    expect(page.get_by_role("alert").first).to_contain_text("accepted: an archive")
    send(page, "fib.zip", archive(EXAMPLES / "fib", model="import astrology\n"))
    expect(page.get_by_text("fib.zip is here")).to_be_visible()
    page.get_by_role("button", name="Check it").click()
    expect(page.locator("#field-service-error")).to_contain_text("1 to 63 letters, digits")
    expect(page.get_by_label("Service name")).to_have_value("no name")
    page.get_by_label("Service name").fill("fib")
    page.get_by_role("button", name="Check it").click()
    expect(page.get_by_role("alert").first).to_contain_text("imports 'astrology'")

    # the signature is shown before anything is kept
    send(page, "fib.zip", archive(EXAMPLES / "fib"))
    expect(page.get_by_text("fib.zip is here")).to_be_visible()
    page.get_by_label("Options").fill('{"model": "small", "version": "0.0.1"}')
    page.get_by_label("Training curves").fill('{"loss": "low"}')
    page.get_by_role("button", name="Check it").click()
    expect(page.locator("#field-curves-error")).to_contain_text("series by name")
    page.get_by_label("Training curves").fill('{"loss": [0.9, 0.5, [3, 0.2]]}')
    page.get_by_role("button", name="Check it").click()
    expect(page.get_by_role("heading", name="Commands")).to_be_visible()
    expect(page.get_by_text("create a algolink model service demo")).to_be_visible()
    assert platform.admin.services() == []

    # the options that the code declares have a field each, which begins as was asked for
    expect(page.get_by_label("model", exact=True)).to_have_value("small")
    page.get_by_label("model", exact=True).fill("big")
    page.get_by_label("model", exact=True).evaluate("it => it.scrollIntoView({block: 'center'})")
    picture(page, "checked")
    page.get_by_role("button", name="Register", exact=True).click()
    expect(page.get_by_role("heading", name="fib version 1")).to_be_visible()
    expect(page.get_by_label("Training curves by step").locator("canvas")).to_be_visible()
    made = platform.admin.version("fib", 1)
    assert made["options"] == {"model": "big", "version": "0.0.1"}
    assert made["curves"] == ["loss"]

    # deploy, and follow the rollout: each worker a cell
    page.get_by_role("button", name="Deploy").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Replicas").fill("0")
    dialog.get_by_role("button", name="Deploy").click()
    expect(dialog.locator("#field-replicas-error")).to_contain_text("greater than or equal to 1")
    dialog.get_by_label("Replicas").fill("2")
    dialog.get_by_label("Instance type").select_option("small")
    picture(page, "deploy")
    dialog.get_by_role("button", name="Deploy").click()
    expect(page.get_by_role("heading", name="Rollout #1")).to_be_visible()
    expect(page.locator(".badge").first).to_have_text("succeeded")
    expect(page.locator(".cell.new.serving")).to_have_count(2)
    picture(page, "rollout")

    # try it: a form made of the schema, and who answered
    show(page, platform, "/services/fib/try")
    page.get_by_label("n", exact=True).fill("x")
    page.get_by_role("button", name="Ask").click()
    expect(page.locator("#field-in-n-error")).to_contain_text("a whole number")
    page.get_by_label("n", exact=True).fill("10")
    page.get_by_role("button", name="Ask").click()
    expect(page.locator("#answer")).to_contain_text('"result": 89')
    expect(page.get_by_text("generation 1")).to_be_visible()
    expect(page.locator("#as-curl")).to_contain_text("""fib/fib -d '{"n": 10}'""")
    picture(page, "try-it")
    page.get_by_label("n", exact=True).fill("31")
    page.get_by_role("button", name="Ask").click()
    expect(page.locator("#answer")).to_contain_text("0 to 30")
    expect(page.get_by_text("400", exact=True)).to_be_visible()

    # update big → small while it is asked; none is lost
    with load(platform.port, "/fib/fib", {"n": 7}, rate=50) as running:
        show(page, platform, "/services/fib")
        page.get_by_label("What to do with version 1").click()
        page.get_by_role("button", name="Change options").click()
        dialog.get_by_label("model").fill("small")
        dialog.get_by_role("button", name="Update").click()
        expect(page.get_by_role("heading", name="Rollout #2")).to_be_visible()
        expect(page.locator(".badge").first).to_have_text("succeeded")
        expect(page.locator(".cell.new.serving")).to_have_count(2)
        assert platform.client.post(f"{platform.url}/fib/fib", json={"n": 7}).json() == {
            "result": 7
        }
        page.get_by_role("button", name="Roll back").click()
        expect(page.get_by_role("heading", name="Rollout #3")).to_be_visible()
        expect(page.locator(".badge").first).to_have_text("succeeded")
    assert failures(running.samples) == []
    assert {sample.generation for sample in running.samples} >= {1, 2}
    assert platform.client.post(f"{platform.url}/fib/fib", json={"n": 7}).json() == {"result": 21}


WEIGHS = """
from pathlib import Path

import modelcloud
from modelcloud.data_types import file, number


@modelcloud.setup()
def setup(options):
    return None


@modelcloud.command("weigh", inputs={"n": number, "content": file}, outputs={"size": number})
def weigh(model, inputs):
    return {"size": Path(inputs["content"]).stat().st_size}
"""


def test_files_of_any_size_up_to_the_limit_of_a_request_are_tried(
    platform: Up, page: Page, tmp_path: Path
) -> None:
    admin = platform.admin
    folder = platform.data.parent / "scales"
    folder.mkdir()
    (folder / "model.py").write_text(WEIGHS, "utf-8")
    admin.register("scales", path=str(folder), group="admin")
    admin.wait(admin.deploy("scales", 1, instance_type="small")["rollout"]["id"])
    sign_in(page, platform, at="/services/scales/try")
    large, too_large = tmp_path / "large.bin", tmp_path / "too-large.bin"
    for file, size in ((large, 5_000_001), (too_large, 60_000_000)):
        with file.open("wb") as writer:
            writer.truncate(size)
    page.get_by_label("content", exact=True).first.set_input_files(large)
    page.get_by_label("n", exact=True).fill("many")
    page.get_by_role("button", name="Ask").click()
    expect(page.locator("#field-in-n-error")).to_be_visible()
    assert admin.uploads() == [], "what was sent beside a wrong field is dropped"
    page.get_by_label("n", exact=True).fill("1")
    page.get_by_label("content", exact=True).first.set_input_files(large)
    page.get_by_role("button", name="Ask").click()
    expect(page.locator("#answer")).to_contain_text("5000001")
    expect(page.locator("#as-curl")).to_contain_text("base64,…")
    page.get_by_label("content", exact=True).first.set_input_files(too_large)
    page.get_by_role("button", name="Ask").click()
    expect(page.locator("#field-in-content-error")).to_contain_text("a request of 80000")
    assert [one for one in admin.uploads() if one["bytes"] > 1_000_000] == []
    admin.delete_service("scales")


def test_versions_are_replaced_shared_out_stopped_and_deleted(platform: Up, page: Page) -> None:
    admin = platform.admin
    source = platform.data.parent / "m261"
    for week in (1, 2, 3):
        admin.register("m261", path=str(source), group="admin", description=f"week {week}")
    for version in (1, 2):
        accepted = admin.deploy("m261", version, instance_type="small")
        admin.wait(accepted["rollout"]["id"])
    sign_in(page, platform, at="/services/m261/traffic")

    # weights by slider, labels, sticky key, shadow
    slider = page.get_by_label("Weight of version 2")
    slider.fill("25")
    page.get_by_label("Weight of version 1").fill("75")
    page.get_by_label("Copies to version 2").fill("50")
    page.get_by_role("button", name="Share out like this").click()
    expect(page.get_by_text("Shared out; every request that comes now follows")).to_be_visible()
    page.get_by_label("Label", exact=True).fill("stable")
    page.get_by_label("leads to version").select_option("1")
    page.get_by_role("button", name="Set the label").click()
    expect(page.get_by_role("cell", name="stable")).to_be_visible()
    page.get_by_label("Where").select_option("header")
    page.get_by_label("Name", exact=True).fill("x-user")
    page.get_by_role("button", name="Save").click()
    traffic = wait_for("all of it", lambda: (t := admin.traffic("m261"))["sticky"] and t)
    assert traffic["weights"] == {"1": 75.0, "2": 25.0}
    assert traffic["labels"] == {"stable": 1}
    assert traffic["shadow"] == {"2": 0.5}
    assert traffic["sticky"] == {"kind": "header", "name": "x-user"}

    # replace 1 by 3
    show(page, platform, "/services/m261")
    page.get_by_role("button", name="Deploy").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("How").select_option("1")
    dialog.get_by_label("Strategy").select_option("rolling")
    dialog.get_by_label("Most workers above the number").fill("-1")
    dialog.get_by_label("Requests go to").select_option("consistent_hash")
    dialog.get_by_label("By what").fill("cookie:user")
    dialog.get_by_label("Seconds that the old one stays ready").fill("1.5")
    dialog.get_by_role("button", name="Replace version 1").click()
    wrong = dialog.locator("[role=alert]")
    expect(wrong.first).to_be_visible()
    dialog.get_by_label("Most workers above the number").fill("1")
    dialog.get_by_label("Most workers below it").fill("0")
    dialog.get_by_role("button", name="Replace version 1").click()
    expect(dialog.locator("#field-dispatch-key-error")).to_contain_text("header:NAME")
    dialog.get_by_label("By what").fill("header:x-user")
    dialog.get_by_role("button", name="Replace version 1").click()
    expect(page.locator(".badge").first).to_have_text("succeeded")
    expect(page.get_by_text("version 1 → 3")).to_be_visible()
    replaced = admin.deployment("m261", 3)
    assert (replaced["keep_warm_s"], replaced["dispatch"]["key"]) == (1.5, "header:x-user")
    strategy = replaced["strategy"]
    assert (strategy["max_surge"], strategy["max_unavailable"]) == (1, 0)

    # stop, start, take offline, delete by its name
    show(page, platform, "/services/m261")
    page.get_by_label("What to do with version 2").click()
    page.get_by_role("button", name="Stop").click()
    dialog.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("row", name=re.compile("^2 Offline"))).to_be_visible()
    page.get_by_label("What to do with version 2").click()
    page.get_by_role("button", name="Take offline for good").click()
    dialog.get_by_role("button", name="Take offline").click()
    expect(page.get_by_role("row", name=re.compile("^2 "))).to_have_count(0)
    page.get_by_role("link", name="Edit").click()
    page.get_by_label("Description").fill("Scores <b>accounts</b>")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Scores <b>accounts</b>").first).to_be_visible()
    page.get_by_label("Port of its own").fill("70000")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("form small.error").first).to_contain_text("65535")
    page.get_by_label("Port of its own").fill("")
    page.get_by_label("Route", exact=True).fill("predict/it")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("form small.error").first).to_contain_text("predict")
    page.get_by_label("Route", exact=True).fill("score")
    page.get_by_label("Method of the route").select_option("GET")
    page.get_by_role("button", name="Save").click()
    wait_for("its route", lambda: admin.service("m261")["route"] == "score")
    assert admin.service("m261")["method"] == "GET"
    page.get_by_role("link", name="Delete", exact=True).click()
    page.get_by_role("button", name="Delete m261").click()
    dialog.get_by_label("Type the name of the service").fill("m26")
    dialog.get_by_role("button", name="Delete").click()
    expect(dialog.get_by_role("alert").first).to_contain_text("m261")
    assert "m261" in {service["name"] for service in admin.services()}
    dialog.get_by_label("Type the name of the service").fill("m261")
    dialog.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", name="Services", level=1)).to_be_visible()
    assert "m261" not in {service["name"] for service in admin.services()}


def test_what_others_change_shows_by_itself(platform: Up, page: Page) -> None:
    sign_in(page, platform, at="/services")
    platform.admin.create_service("elsewhere", group="admin")
    expect(page.get_by_role("heading", name="elsewhere")).to_be_visible()
    platform.admin.edit_service("elsewhere", description="seen at once")
    expect(page.get_by_text("seen at once")).to_be_visible()
    page.get_by_label("Search services").fill("nothing-like-it")
    expect(page.get_by_text("Nothing fits")).to_be_visible()
    page.get_by_label("Search services").fill("elsew")
    expect(page.get_by_role("heading", name="elsewhere")).to_be_visible()
    assert urlsplit(page.url).query == "q=elsew"
    platform.admin.delete_service("elsewhere")
    expect(page.get_by_text("Nothing fits")).to_be_visible()


def test_logs_are_followed_and_searched(platform: Up, page: Page) -> None:
    admin = platform.admin
    admin.register("talker", path=str(platform.data.parent / "fib"), group="admin",
                   options={"model": "big", "version": "1"})  # fmt: skip
    sign_in(page, platform, at="/services/talker/logs")
    expect(page.get_by_text("Nothing yet")).to_be_visible()
    admin.wait(admin.deploy("talker", 1, instance_type="small")["rollout"]["id"])
    expect(page.locator(".lines li", has_text="succeeded")).to_be_visible()
    page.get_by_label("Search lines").fill("SWITCH")
    expect(page.locator(".lines li")).to_have_count(1)
    expect(page.locator(".lines li")).to_contain_text("switching")
    admin.delete_service("talker")


def test_a_group_is_shared_and_each_level_may_what_it_may(platform: Up, page: Page) -> None:
    admin = platform.admin
    for user in ("ada", "ben", "cleo"):
        admin.create_user(user, PASSWORD)
    sign_in(page, platform, "ada", at="/groups")
    page.get_by_role("button", name="New group").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("scoring")
    dialog.get_by_role("button", name="Make the group").click()
    expect(page.get_by_role("heading", name="scoring", level=1)).to_be_visible()
    for user, level in (("ben", "modify"), ("cleo", "read")):
        page.get_by_role("button", name="Add a member").click()
        dialog.get_by_label("User").fill(user)
        dialog.get_by_label("Level").select_option(level)
        dialog.get_by_role("button", name="Add").click()
        expect(page.get_by_label(f"Level of {user}")).to_have_value(level)
    page.get_by_role("button", name="Add a member").click()
    dialog.get_by_label("User").fill("nobody")
    dialog.get_by_role("button", name="Add").click()
    expect(dialog.get_by_role("alert")).to_contain_text("no user 'nobody'")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)

    with platform.sign_in("ada") as ada:
        ada.register("shared", path=str(platform.data.parent / "m261"), group="scoring")
        ada.wait(ada.deploy("shared", 1, instance_type="small")["rollout"]["id"])
    page.context.clear_cookies()
    for user, buttons in (
        ("ben", {"Deploy", "Change options", "Scale", "Redeploy"}),
        ("cleo", set()),
    ):
        sign_in(page, platform, user, at="/services/shared")
        expect(page.get_by_text("inference_service")).to_be_visible()
        found = {text.strip() for text in page.locator("#main button").all_text_contents()}
        assert found - {"Copy"} == buttons
        page.context.clear_cookies()
    admin.delete_service("shared")


def test_a_token_is_made_shown_once_used_and_revoked(platform: Up, page: Page) -> None:
    sign_in(page, platform, at="/tokens")
    page.get_by_role("button", name="New token").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("What for").fill("shop")
    dialog.get_by_label("Level").select_option("read")
    dialog.get_by_role("button", name="Make the token").click()
    token = dialog.locator("#new-token").text_content() or ""
    assert token.startswith("mc_")
    asked = platform.client.get(
        f"{platform.api}/api/v1/session", headers={"authorization": f"Bearer {token}"}
    )
    assert asked.json()["scope_level"] == "read"
    dialog.get_by_role("button", name="Done").click()
    expect(page.get_by_role("row", name=re.compile("shop"))).to_be_visible()
    expect(page.locator("#new-token")).to_have_count(0)
    assert token not in page.content()
    page.get_by_role("button", name="Revoke: shop").click()
    expect(page.get_by_role("row", name=re.compile("shop"))).to_have_count(0)


def test_administrators_manage_users_types_and_quotas(platform: Up, page: Page) -> None:
    sign_in(page, platform, at="/users")
    page.get_by_role("button", name="New user").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("dan")
    dialog.get_by_role("button", name="Make the user").click()
    password = dialog.locator("#new-password").text_content() or ""
    with platform.sign_in("dan", password) as dan:
        assert dan.whoami()["must_change_password"]
    dialog.get_by_role("button", name="Done").click()
    page.get_by_role("button", name="Edit: dan").click()
    dialog.get_by_label("Disabled").check()
    dialog.get_by_role("button", name="Save").click()
    expect(page.get_by_role("row", name=re.compile("dan.*disabled"))).to_be_visible()

    page.get_by_role("link", name="Instance types").click()
    page.get_by_role("button", name="New instance type").click()
    dialog.get_by_label("Name").fill("tiny")
    dialog.get_by_label("Processors").fill("0.1")
    dialog.get_by_label("Memory in MiB").fill("256")
    dialog.get_by_role("button", name="Make it").click()
    expect(page.get_by_role("row", name=re.compile("tiny.*0.1.*256 MiB"))).to_be_visible()

    page.get_by_role("link", name="Node and quotas").click()
    page.get_by_role("button", name="Quota: dan").click()
    dialog.get_by_label("Processors").fill("1.5")
    dialog.get_by_role("button", name="Save").click()
    expect(page.get_by_role("row", name=re.compile("dan.*0 . 1.5"))).to_be_visible()

    page.get_by_role("link", name="Audit log").click()
    page.get_by_label("Object").fill("dan")
    page.get_by_role("button", name="Filter").click()
    expect(page.get_by_role("row", name=re.compile("quotas.manage.*cpu 1.5"))).to_be_visible()
    expect(page.get_by_role("row", name=re.compile("session.create group"))).to_have_count(0)
    page.get_by_label("Since").fill("2100-01-01T00:00")
    page.get_by_role("button", name="Filter").click()
    expect(page.get_by_text("No entry fits.")).to_be_visible()
    page.get_by_label("Since").fill("")
    page.get_by_label("Until").fill("2100-01-01T00:00")
    page.get_by_role("button", name="Filter").click()
    expect(page.get_by_role("row", name=re.compile("quotas.manage.*cpu 1.5"))).to_be_visible()
    page.reload()
    expect(page.get_by_label("Until")).to_have_value("2100-01-01T00:00")
