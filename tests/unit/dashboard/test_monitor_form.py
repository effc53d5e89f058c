"""The form of a monitor: its fields by the kind of place, and what comes of them for the API."""

from __future__ import annotations

from typing import Any

import pytest

from modelcloud.control.monitors.monitor_forms import OPTIONS, MonitorBody, MonitorChanges
from modelcloud.dashboard.parts.monitor_form import (
    body_of,
    online_fields,
    place_so_far,
    rule_fields,
    source_fields,
    version_fields,
)
from modelcloud.dashboard.words import Words
from modelcloud.errors import InvalidInput
from modelcloud.monitors.source import TYPES

T = Words("en")
FTP: dict[str, Any] = {
    "type": "ftp", "remote_path": "/daily", "remote_model_name": "m.tar",
    "remote_donefile_name": "done", "ftp_host": "ftp.example.com", "ftp_username": "ann",
    "interval": 10.0, "keep": 10, "trust": "ftp://ftp.example.com/daily",
    "deploy": {"instance_type": "small", "label": "stable"},
}  # fmt: skip


def named(kind: str) -> set[str]:
    return {one.name for one in source_fields(T, kind, {}, [], ["/models"])}


def test_together_the_forms_of_all_kinds_of_places_hold_every_setting() -> None:
    fields = {name for kind in TYPES for name in named(kind)}
    rest = [*rule_fields(T, {}, ""), *online_fields(T, {}, {}, [], [], None)]
    fields |= {one.name for one in [*rest, *version_fields(T, {})]}
    settings = set(MonitorChanges.model_fields)
    assert {name.partition(".")[0] for name in fields} == settings
    for plain, hidden in OPTIONS.values():
        assert {f"storage_options.{name}" for name in plain} <= fields
        assert {f"secret_options.{name}" for name in hidden} <= fields


def test_a_field_of_one_kind_of_place_is_not_asked_for_with_another() -> None:
    assert "ftp_password" in named("ftp")
    assert not named("url") & {"ftp_host", "ftp_password", "general_host", "known_hosts"}


def test_what_was_filled_in_is_a_body_of_the_api() -> None:
    values = {
        **{name: value for name, value in FTP.items() if name != "deploy"}, "name": "daily",
        "ftp_password": "s3cret-word", "replaces": "new", "strategy": "rolling",
        "strategy.max_surge": 1, "deploy.instance_type": "small", "deploy.replicas": 2,
    }  # fmt: skip
    body = MonitorBody(**body_of(values, {}, []))
    assert (body.ftp_password, body.replaces, body.deploy.replicas) == ("s3cret-word", None, 2)
    assert body.strategy == {"name": "rolling", "max_surge": 1}


def test_a_change_keeps_what_the_form_does_not_show_and_credentials_that_were_not_typed() -> None:
    values = {"type": "ftp", "ftp_password": "", "replaces": "keep", "deploy.replicas": 3}
    body = body_of(values, FTP, ["ftp_password"])
    assert body["deploy"] == {"instance_type": "small", "label": "stable", "replicas": 3}
    assert not body.keys() & {"ftp_password", "replaces", "strategy"}
    assert body["trust"] == ""  # which was emptied


def test_another_kind_of_place_resets_the_settings_of_the_one_before() -> None:
    body = body_of({"type": "url", "replaces": "7"}, FTP, ["ftp_password"])
    assert (body["ftp_host"], body["ftp_username"], body["replaces"]) == ("", "", 7)


def test_credentials_are_forgotten_on_demand_and_change_all_together() -> None:
    kept = ["secret_options.key", "secret_options.secret"]
    forget = {"type": "s3", "forget": True}
    assert body_of(forget, {}, kept)["secret_options"] == {}
    assert body_of({"type": "ftp", "forget": True}, FTP, ["ftp_password"])["ftp_password"] == ""
    with pytest.raises(InvalidInput, match="all together") as caught:
        body_of({"type": "s3", "secret_options.secret": "new"}, {}, kept)
    assert caught.value.fields["field"] == "secret_options.key"


def test_the_place_is_named_while_it_is_typed() -> None:
    typed = {"type": "ftp", "ftp_host": "ftp.example.com", "remote_path": "daily"}
    assert place_so_far({**typed, "ftp_port": "2121"}) == "ftp://ftp.example.com:2121/daily"
    assert place_so_far({**typed, "ftp_port": "many"}) == "ftp://ftp.example.com/daily"
    assert place_so_far({"type": "ftp"}) == ""
