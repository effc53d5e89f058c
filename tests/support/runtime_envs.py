"""Environments of their own for model libraries that are too big for everybody's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / ".cache" / "runtimes"
_CONSTRAINTS = ROOT / "constraints.txt"

#: What a worker needs in any environment, beside the model's library.
_WORKER = ("msgspec", "numpy", "uvloop")
_LIBRARIES = {
    "mlflow": ("mlflow-skinny==3.17.2", "pandas", "scikit-learn", "skops"),
    "paddle": ("paddlepaddle==3.3.1", "setuptools"),
    "tensorflow": ("tensorflow==2.21.0",),
    # pip, unlike uv, takes the build without CUDA from an index that has both
    "torch": ("torch==2.13.0",),
}
_BUILD_S = 900


def interpreter(name: str) -> Path:
    """The interpreter of a library's environment, which is built if it is not there."""
    folder = FOLDER / f"{name}-{sys.version_info[0]}.{sys.version_info[1]}"
    python = folder / "bin" / "python"
    wanted = "\n".join([*_LIBRARIES[name], *_WORKER])
    stamp = folder / "complete"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    _run(sys.executable, "-m", "venv", "--clear", folder)
    _run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
         "--constraint", _CONSTRAINTS, *wanted.splitlines())  # fmt: skip
    stamp.write_text(wanted)
    return python


def train(python: Path, program: str, folder: Path) -> str:
    """Run a program in an environment, in an empty folder; what it prints."""
    folder.mkdir()
    return _run(python, "-c", program, cwd=folder)


def _run(*command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(
        [*map(str, command)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=_BUILD_S,
        check=False,
    )
    assert done.returncode == 0, f"{command[0]} {command[1]}: {done.stderr[-4000:]}"
    return done.stdout
