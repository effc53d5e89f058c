"""`modelcloud.run()` in a script: the script's process becomes the server of the script."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.server import Server

MODEL = """
import modelcloud
from modelcloud.data_types import number

@modelcloud.setup(options={"plus": number(default=0)})
def setup(options):
    return options["plus"]

@modelcloud.command("scale", inputs={"x": number}, outputs={"y": number})
def scale(model, inputs):
    return 2 * inputs["x"] + model

if __name__ == "__main__":
    modelcloud.run(port=0, workers=1, model_options={"plus": 1})
"""


@contextmanager
def running(*command: str, cwd: Path) -> Iterator[Server]:
    with subprocess.Popen(
        [sys.executable, *command],
        cwd=cwd,
        env={**os.environ, "TMPDIR": str(cwd)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        server = Server(process)
        try:
            server.wait_serving()
            yield server
            assert server.stop() == 0, server.output
        finally:
            process.kill()
            server.client.close()


def scaled(server: Server, x: int) -> object:
    return server.post("/scale", {"x": x}).json()


def test_a_script_serves_itself_and_its_edits(tmp_path: Path) -> None:
    script = tmp_path / "model.py"
    script.write_text(MODEL)
    with running("model.py", cwd=tmp_path) as server:
        assert scaled(server, 10) == {"y": 21}
        assert server.update(plus=5).status_code == 200
        assert scaled(server, 10) == {"y": 25}
        script.write_text(MODEL.replace("2 * ", "3 * "))
        assert server.update().status_code == 200
        assert scaled(server, 10) == {"y": 35}
        script.write_text("def f(:\n")
        refused = server.update()
        assert refused.status_code == 422
        assert "syntax error" in refused.json()["error"]
        assert scaled(server, 10) == {"y": 35}


def test_a_program_without_a_file_is_served_from_what_it_declared(tmp_path: Path) -> None:
    with running("-c", MODEL, cwd=tmp_path) as server:
        assert scaled(server, 10) == {"y": 21}
