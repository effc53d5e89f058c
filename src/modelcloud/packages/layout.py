"""`modelcloud new algopkg NAME`: the files of a new package, and its section in `conf.ini`.

Must never: overwrite a file.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from modelcloud.errors import UsageError
from modelcloud.packages import conf
from modelcloud.packages.sources import BACKEND, INIT, PACKAGES, REQUIREMENTS, ZOO

CONF = "conf.ini"

_BACKEND = '''"""The package {name}, as modelcloud serves it."""

import os


class {class_name}:
    """Loads the models of the section's `model`, and answers with them.

    Import what the model needs inside the methods: it is there in this package's own environment,
    and nowhere else.
    """

    def __init__(self, model_path):
        """Get `Model_ZOO,file,file…`, or nothing where the section names no model."""
        folder, *names = model_path.split(",")
        self.threshold = 0.5
        self._model_init([os.path.join(folder, name) for name in names])

    def _model_init(self, model_path_lst):
        """Load the models; what it raises is why the update failed, and the old one goes on."""
        self.models = model_path_lst

    def _model_inference(self, param_dict):
        """Answer one request: what it returns is the `result`."""
        return {{"params": param_dict, "models": len(self.models), "threshold": self.threshold}}

    def reconfigure(self, config):
        """Take the section's `user_config`, at the start and whenever it changes; optional."""
        self.threshold = config.get("threshold", self.threshold)
'''
_REQUIREMENTS = "# The packages of {name}, one a line, as numpy==2.2.6; they are its own.\n"
_SERVER = """[MODEL SERVE]
# port of the routes below: any that is free, or the platform's own
port = 9090
"""
_SECTION = """
[algopkg.{name}]
# the class in algopkg/{name}/backend.py
backend = {class_name}
# files in Model_ZOO, separated by commas, or nothing
model =
replicas = 1
gpu_cost = 0
# http://HOST:PORT/{route}
route = {route}
method = GET
"""


class Done(NamedTuple):
    """What was made, what was there already, and what is left to do by hand ("" for nothing)."""

    made: list[Path]
    kept: list[Path]
    hint: str


def new(root: Path, name: str) -> Done:
    """Lay out a package below `root`.

    Raises:
        UsageError: the name cannot be one, or a file cannot be written.
    """
    if not conf.is_name(name):
        raise UsageError(
            f"{name!r} is no name of a package; accepted: letters, digits and _, beginning with "
            "a letter, up to 63"
        )
    words = {"name": name, "class_name": "algo_backend", "route": name.lower()}
    package = root / PACKAGES / name
    files = {
        package / INIT: "",
        package / BACKEND: _BACKEND.format(**words),
        package / REQUIREMENTS: _REQUIREMENTS.format(**words),
    }
    made: list[Path] = []
    kept: list[Path] = []
    try:
        (root / ZOO).mkdir(parents=True, exist_ok=True)
        package.mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            (made if _write(path, text) else kept).append(path)
        if _write(root / CONF, _SERVER + _SECTION.format(**words)):
            return Done([*made, root / CONF], kept, "")
        hint = _append(root / CONF, words)
    except OSError as error:
        raise UsageError(f"{error.filename} cannot be written: {error.strerror}") from None
    return Done(made, kept, hint)


def _write(path: Path, text: str) -> bool:
    """Write a file that is not there."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True


def _append(path: Path, words: dict[str, str]) -> str:
    """Add the section to a `conf.ini` that takes it; else what its author may want to add."""
    section = _SECTION.format(**words)
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError:
        return f"{path} is no text in UTF-8; the section would be:\n{section}"
    found, problems = conf.parse(text, path.name)
    if any(one.name == words["name"] for one in found.sections):
        return ""
    if problems or any(one.route == words["route"] for one in found.sections):
        why = str(problems[0]) if problems else f"the route {words['route']} is taken"
        return f"{path} was left as it is ({why}); the section would be:\n{section}"
    with path.open("a", encoding="utf-8") as file:
        file.write(section if text.endswith("\n") or not text else "\n" + section)
    return f"[algopkg.{words['name']}] was added to {path}"
