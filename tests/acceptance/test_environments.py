"""Served over TLS, and with the model in an interpreter of its own."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import venv
import warnings
from pathlib import Path

import httpx
import msgspec
import pytest

from support.models import obedient
from support.programs import program
from support.server import serve, start, wait_for

pytestmark = pytest.mark.xdist_group("acceptance")

MODEL = """
import importlib.util, sys
import modelcloud
from modelcloud.data_types import any

@modelcloud.command("where", inputs={"x": any(default=0)}, outputs={"where": any})
def where(model, inputs):
    libraries = ("msgspec", "uvloop", "httpx")
    return {"where": [sys.prefix, *(n for n in libraries if importlib.util.find_spec(n))]}
"""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed one for 127.0.0.1, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


def test_over_tls_a_model_is_served_and_updated(
    tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    cert, key = certificate
    with serve(
        obedient(tmp_path), "--replicas", "1", "--tls-cert", cert, "--tls-key", key
    ) as server:
        assert server.url.startswith("https://")
        trusting = ssl.create_default_context(cafile=str(cert))
        with httpx.Client(base_url=server.url, verify=trusting, timeout=60) as client:
            assert client.post("/ask", json={}).json()["answer"] == 1
            assert client.post("/setup", json={"answer": 2}).status_code == 200
            answer = client.post("/ask", json={})
            assert (answer.json()["answer"], answer.headers["x-model-generation"]) == (2, "2")
            (gateway,) = server.pids("gateway")
            os.kill(gateway, signal.SIGKILL)
            wait_for("a new gateway", lambda: server.pids("gateway") not in ([], [gateway]))
        with httpx.Client(base_url=server.url, verify=trusting, timeout=60) as client:
            assert client.post("/ask", json={}).json()["answer"] == 2
        versions = ssl.TLSVersion
        assert accepts(server.port, cert, versions.TLSv1_2)
        for version in (versions.TLSv1, versions.TLSv1_1):
            assert not accepts(server.port, cert, version)
        with httpx.Client(timeout=60) as plain, pytest.raises(httpx.HTTPError):
            plain.get(server.url.replace("https:", "http:") + "/healthz")


def accepts(port: int, cert: Path, version: ssl.TLSVersion) -> bool:
    """Whether a handshake of this version succeeds."""
    context = ssl.create_default_context(cafile=str(cert))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the old ones are the point
        context.minimum_version = context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=30) as raw,
            context.wrap_socket(raw, server_hostname="127.0.0.1"),
        ):
            return True
    except OSError:
        return False


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with nothing installed."""
    folder = tmp_path_factory.mktemp("environment") / "env"
    venv.create(folder, with_pip=False, symlinks=True)
    return folder


def test_an_interpreter_without_msgspec_is_said_with_the_remedy(tmp_path: Path, bare: Path) -> None:
    python = bare / "bin" / "python"
    server = start(obedient(tmp_path), "--port", "0", "--python", python)
    assert server.wait() != 0
    assert f"{python} has no msgspec" in server.output
    assert f"{python} -m pip install msgspec" in server.output
    assert "Serving at" not in server.output


def test_a_model_runs_in_its_own_environment_and_sees_only_that(tmp_path: Path, bare: Path) -> None:
    (packages,) = bare.glob("lib/python*/site-packages")
    link = packages / "msgspec"
    link.symlink_to(Path(msgspec.__file__).parent)  # as if installed there, without a network
    model = tmp_path / "model.py"
    model.write_text(MODEL)
    try:
        with serve(model, "--replicas", "1", "--python", bare / "bin" / "python") as server:
            assert server.post("/where", {}).json()["where"] == [str(bare), "msgspec"]
            model.write_text(MODEL + "\n# edited\n")
            assert server.post("/setup", {}).status_code == 200
            answer = server.post("/where", {})
            assert answer.json()["where"] == [str(bare), "msgspec"]
            assert answer.headers["x-model-version"] == "2"
    finally:
        link.unlink()
