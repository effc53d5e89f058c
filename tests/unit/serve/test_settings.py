"""Settings that cannot work are one clear line before anything is started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modelcloud.config import ServeConfig
from modelcloud.errors import UsageError
from modelcloud.sdk.declare import RESERVED
from modelcloud.serve.settings import checked, service_name
from modelcloud.types import Strategy, StrategySpec


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "fib" / "model.py"
    path.parent.mkdir()
    path.write_text("")
    return path


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"replicas": 0}, "replicas"),
        ({"threads": 0}, "threads"),
        ({"gateways": -1}, "gateways"),
        ({"port": 65536}, "port"),
        ({"admin_token": "two words"}, "token"),
        ({"admin_token": "tøken"}, "token"),
        ({"python": "/no/such/python"}, "/no/such/python"),
        ({"tls_cert": "c.pem"}, "go together"),
        ({"tls_cert": "c.pem", "tls_key": "k.pem"}, "c.pem"),
        ({"uds": "s", "tls_cert": "c.pem", "tls_key": "k.pem"}, "uds and tls_cert"),
        ({"artifact_root": "gone"}, "gone"),
        ({"service": "a/b"}, "a/b"),
        ({"service": "setup"}, "address of the server"),
        ({"strategy": StrategySpec(name=Strategy.ROLLING, max_unavailable=0)}, "at least one"),
    ],
)
def test_a_setting_that_cannot_work_is_named(
    model: Path, settings: dict[str, Any], says: str
) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        checked(ServeConfig(target=str(model), **settings))
    assert "tøken" not in caught.value.message
    assert "two words" not in caught.value.message


def test_files_that_are_no_certificate_are_refused(model: Path) -> None:
    with pytest.raises(UsageError, match="accepted: a certificate chain"):
        checked(ServeConfig(target=str(model), tls_cert=str(model), tls_key=str(model)))


@pytest.mark.parametrize("target", ["fib/model.py", "fib", "fib/model.py:predict"])
def test_artifacts_are_named_below_the_targets_folder_unless_told(model: Path, target: str) -> None:
    assert checked(ServeConfig(target=target)).artifact_root == str(model.parent)
    told = checked(ServeConfig(target=target, artifact_root="."))
    assert told.artifact_root == str(model.parent.parent)


def test_the_upload_area_is_a_folder_that_is_there_and_becomes_absolute(model: Path) -> None:
    assert checked(ServeConfig(target=str(model))).upload_dir == ""
    told = checked(ServeConfig(target=str(model), upload_dir="fib"))
    assert told.upload_dir == str(model.parent)
    for wrong in ("missing", str(model)):
        with pytest.raises(UsageError, match=r"upload_dir: .* is no folder"):
            checked(ServeConfig(target=str(model), upload_dir=wrong))


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("fib/model.py", "fib"),
        ("fib", "fib"),
        ("fib/pi sqrt.py:pisqrt", "pi_sqrt"),
        ("package.module:function", "module"),
        ("notebook-1.pkl", "notebook-1"),
        ("metrics.py", "metrics_model"),
        ("…/….py", "model"),
    ],
)
def test_a_service_is_named_by_what_is_served(model: Path, target: str, name: str) -> None:
    assert service_name(target) == name
    assert name not in RESERVED
