"""Runs a package once, the way a platform's worker would, and says how each step went.

Must never: run the package's code in this process, or leave the other one behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from modelcloud.artifacts import environment
from modelcloud.dataplane.messages import MessageReader, encode
from modelcloud.errors import ModelLoadError, UsageError
from modelcloud.node.processes import command, describe_exit
from modelcloud.packages import conf, ini, sources
from modelcloud.packages.check_process import Check, Failed, FromChecker, Passed
from modelcloud.packages.conf import Section
from modelcloud.packages.layout import CONF
from modelcloud.packages.sources import BACKEND, PACKAGES, Source
from modelcloud.types import GenerationSpec

ENVIRONMENT, INFERENCE = "environment", "inference"
_PROCESS = "modelcloud.packages.check_process"
#: From the end of what the process says to its own.
_GRACE_S = 5.0


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A step that went well: `environment`, `import`, `load`, `inference`; and a word on it."""

    step: str
    seconds: float
    note: str = ""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """How it went.

    Attributes:
        steps: those that went well, in order.
        answer: what a client would get, once it came to that.
        problem: what is wrong, in words; "" where nothing is. It names the user's own file.
        detail: the traceback behind it.
    """

    package: str
    steps: list[Step]
    answer: Any = None
    problem: str = ""
    detail: str = ""


def section_of(package: Path, given: dict[str, Any]) -> tuple[Section, Path]:
    """What is to be checked, and the folder that it is below.

    That is the package's section of the `conf.ini` beside `algopkg/`, where it has one, with what
    is given on the command line in place of its keys.

    Args:
        package: `algopkg/NAME`.
        given: keys of a section, those that are None left out.

    Raises:
        UsageError: it is no such folder, or its section cannot be read.
    """
    place = package.resolve()
    if place.parent.name != PACKAGES or not place.is_dir():
        raise UsageError(f"{package} is no package; accepted: {PACKAGES}/NAME, a folder")
    root, name = place.parent.parent, place.name
    path = root / CONF
    found = None
    if path.is_file():
        read, problems = conf.parse(read_text(path), str(path))
        if problems:
            raise ini.Refused(problems)
        found = next((section for section in read.sections if section.name == name), None)
    if found is None:
        backend = given.get("backend") or _only_class(place / BACKEND)
        text = f"[{conf.PREFIX}{name}]\nbackend = {backend}\nroute = {name}\n"
        read, problems = conf.parse(text, f"{PACKAGES}/{name}")
        if problems:
            raise ini.Refused(problems)
        found = read.sections[0]
    changed = {key: value for key, value in given.items() if value is not None}
    return msgspec.structs.replace(found, **changed), root


def check(
    section: Section,
    root: Path,
    params: Any,
    *,
    envs: Path,
    timeout_s: float,
    say: Callable[[str], None],
) -> Result:
    """Build its environment, import it, load it, ask it once.

    Args:
        section: see `section_of`.
        root: likewise.
        params: the JSON that is asked with.
        envs: folder of environments, which are built once.
        timeout_s: for importing, loading and answering together.
        say: takes a line about the building of the environment.

    Raises:
        Refused: a file is missing or does not fit.
    """
    source = sources.source(section, root, CONF)
    steps: list[Step] = []
    begun = time.monotonic()
    try:
        python = source.python
        note = python or f"this Python, {sys.version.split()[0]}"
        if python:
            environment.check_interpreter(python)
        if source.requirements:
            python = environment.build(source.requirements, python, envs, say)
            note = f"built from {section.requirements or sources.REQUIREMENTS}"
    except ModelLoadError as error:
        return Result(package=source.name, steps=steps, problem=error.message)
    except OSError as error:
        told = f"the environment cannot be built: {error}"
        return Result(package=source.name, steps=steps, problem=told)
    steps.append(Step(step=ENVIRONMENT, seconds=time.monotonic() - begun, note=note))
    with tempfile.TemporaryDirectory(prefix="modelcloud-") as folder:
        place = Path(folder).resolve()
        sources.lay_down(source, place)
        spec = _spec(source, place, section.user_config)
        result = _run(python or sys.executable, spec, params, timeout_s, steps, source.name)
        return _at_home(result, place, source, root)


def envs_folder() -> Path:
    """Where environments are kept from one check to the next."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "modelcloud" / "envs"


def read_text(path: Path) -> str:
    """The text of a `conf.ini`.

    Raises:
        UsageError: there is none that can be read.
    """
    try:
        return path.read_text("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; accepted: a conf.ini") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: no text in UTF-8; accepted: a conf.ini") from None


# ---- inside


def _only_class(backend: Path) -> str:
    """The class of a `backend.py` that answers, where there is no doubt.

    Raises:
        UsageError: there is none, or several.
    """
    try:
        found = list(sources.classes_of(backend))
    except OSError:
        return "algo_backend"  # that the file is missing is told with all else that is
    except (SyntaxError, ValueError) as error:
        raise UsageError(f"{backend}: {error}; accepted: valid Python") from None
    if len(found) != 1:
        raise UsageError(
            f"{backend} has {'the classes ' + ', '.join(found) if found else 'no class'}; name the "
            "one that answers with --backend, or in conf.ini"
        )
    return found[0]


def _spec(source: Source, place: Path, user_config: Any) -> GenerationSpec:
    """That of a worker on a platform, but that it tells the traceback of a failed inference."""
    return GenerationSpec(
        service=source.name,
        generation=1,
        version=1,
        target=source.main,
        snapshot=str(place),
        digest=source.digest,
        options={} if user_config is None else {"config": user_config},
        model_path=source.model_path,
        python=source.python,
        runenv="dev",
    )


def _run(
    python: str, spec: GenerationSpec, params: Any, timeout_s: float, steps: list[Step], name: str
) -> Result:
    doing = "import"
    deadline = time.monotonic() + timeout_s
    with _process(python, spec.snapshot) as (process, control):
        control.sendall(encode(Check(spec=spec, body=json.dumps(params).encode())))
        for message in _messages(control, deadline):
            if isinstance(message, Failed):
                where = f" ({message.file}:{message.line})" if message.file else ""
                told = f"{message.step}: {message.message}{where}"
                return Result(package=name, steps=steps, problem=told, detail=message.detail)
            steps.append(Step(step=message.step, seconds=message.seconds))
            doing = {"import": "load", "load": INFERENCE}.get(message.step, "")
            if message.step == INFERENCE:
                return _judged(message, steps, name)
        if time.monotonic() >= deadline:
            told = f"{doing}: it took longer than {timeout_s:g} s, and was ended"
            return Result(package=name, steps=steps, problem=told)
        try:
            how = describe_exit(process.wait(_GRACE_S))
        except subprocess.TimeoutExpired:
            how = "closed its connection"
    told = f"{doing}: its process {how}; what it printed stands above"
    return Result(package=name, steps=steps, problem=told)


def _judged(message: Passed, steps: list[Step], name: str) -> Result:
    """What an answer means: that of a class may say itself that it failed."""
    answer = json.loads(message.answer)
    problem = detail = ""
    if message.status != 200:
        problem = f"inference: answered with status {message.status}: {answer.get('error', answer)}"
        detail = answer.get("traceback", "")
    elif isinstance(answer, dict) and answer.get("status") == 0:
        detail = str(answer.get("info", ""))
        last = detail.strip().rpartition("\n")[2]
        problem = f"inference: it failed, and its answer has status 0: {last}"
    return Result(package=name, steps=steps, answer=answer, problem=problem, detail=detail)


@contextmanager
def _process(python: str, folder: str) -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
    """The checking process; it and what it started are gone after the block."""
    here, there = socket.socketpair()
    with here:
        with there:
            process = subprocess.Popen(  # noqa: S603 — the interpreter that the user names
                [*command(python, _PROCESS), str(there.fileno())],
                stdin=subprocess.PIPE,  # its closing ends the process (see `dataplane.lifeline`)
                stdout=sys.stderr.fileno(),
                cwd=folder,
                pass_fds=[there.fileno()],
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"},
            )
        try:
            yield process, here
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if process.stdin is not None:
                process.stdin.close()


def _messages(control: socket.socket, deadline: float) -> Iterator[Any]:
    """What the process says, until it has no more to say or the time is over."""
    reader = MessageReader(FromChecker)
    while (left := deadline - time.monotonic()) > 0:
        control.settimeout(left)
        try:
            data = control.recv(65536)
        except (TimeoutError, ConnectionError):
            return
        if not data:
            return
        yield from reader.feed(data)


def _at_home(result: Result, place: Path, source: Source, root: Path) -> Result:
    """The result with the files' own places, where it names the copies that were run."""

    def told(text: str) -> str:
        for name, path in source.files.items():
            text = text.replace(str(place / name), str(path))
        return text.replace(str(place), str(root))

    return msgspec.structs.replace(result, problem=told(result.problem), detail=told(result.detail))
