"""An environment of its own for a version that has requirements: resolved once, built once.

Must never: change an environment that is complete, or use one that is not. It runs in a process
of its own, for installing a package may run that package's code.

Requirements are resolved to exact versions the first time they are seen, and that lock is kept: a
version deployed again next year runs with the packages that it was proven with. The environment's
folder is named by the lock's content, so equal locks share one. What each request led to is written
down (`<request>.use`), by which `collect` knows what nobody asks for any more.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

from modelcloud.errors import ModelLoadError, UsageError

#: What a worker needs beside the model's own packages.
WORKER_NEEDS = ("msgspec>=0.19", "uvloop>=0.21; sys_platform != 'win32'")

_COMPLETE = ".complete"
#: `<key>` of an environment or of requirements + what it is: exact versions, a hold on the key; and
#: of a request, the keys that it led to.
_LOCK, _HOLD, _USE = ".txt", ".lock", ".use"
_TOLD_LINES = 12


#: Options that lead to packages; those that would read other files of this machine are refused.
_INDEXES = ("--index-url", "-i", "--extra-index-url")
_OPTIONS = (*_INDEXES, "--pre", "--no-binary", "--only-binary", "--hash")
#: How what is fetched may be named: a path would be read from this machine's disk.
_REMOTE = re.compile(r"(git\+)?https?://")
_PATH = re.compile(r"[/\\]|^[.~]|\.(whl|zip|t?gz|tar|bz2|xz|zst)\b", re.IGNORECASE)


def check_requirements(text: str) -> None:
    """Refuse lines that name files of this machine: what they hold could be told in an error.

    Nor may a line hold `${NAME}`, for which uv puts a value of the environment.

    Raises:
        UsageError: with the line's number and what is accepted.
    """
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#", 1)[0].removesuffix(" \\").split()
        if words and not _is_taken(words, line):
            raise UsageError(
                f"requirements, line {number}: {line.strip()[:80]!r} is not taken; accepted: names "
                "with versions (PEP 508), https addresses, and the options " + ", ".join(_OPTIONS)
            )


def _is_taken(words: Sequence[str], line: str) -> bool:
    first, _, value = words[0].partition("=")
    if "${" in line or "file:" in line.lower():
        return False
    if first.startswith("-"):
        place = value or "".join(words[1:2])
        return first in _OPTIONS and (first not in _INDEXES or bool(_REMOTE.match(place)))
    if _REMOTE.match(words[0]):
        return True
    name, at, place = " ".join(words).partition(";")[0].partition("@")
    if at and not _REMOTE.match(place.lstrip()):
        return False
    return not _PATH.search(name)


def build(requirements: str, base: str, folder: Path, say: Callable[[str], None]) -> str:
    """Return the interpreter of an environment that fulfils `requirements`, built if need be.

    Args:
        requirements: text of a requirements file.
        base: the interpreter to build on; empty for the one that runs this.
        folder: where environments and locks are kept.
        say: takes a line about what is done.

    Raises:
        UsageError: a line names a file of this machine.
        ModelLoadError: they cannot be resolved or installed; the message holds uv's own words.
        OSError: the folder cannot be written.
    """
    check_requirements(requirements)
    use = folder / f"{_digest(requirements, base)}{_USE}"
    base = _interpreter(base)
    identity = _identity(base)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    resolved = _digest(requirements, identity)
    lock = folder / f"{resolved}{_LOCK}"
    with _held(folder, resolved):
        _note(use, resolved)
        if not lock.exists():
            _resolve(requirements, base, lock, say)
        key = _digest(lock.read_text("utf-8"), identity)
        with _held(folder, key):
            _note(use, key)
            if (folder / key / _COMPLETE).exists():
                say(f"environment {key[:12]} is there already")
            else:
                _install(lock, base, folder / key, say)
    return str(folder / key / "bin" / "python")


def collect(folder: Path, wanted: Collection[tuple[str, str]], spared_s: float) -> int:
    """Remove the environments and locks that only requests led to which nobody makes any more.

    One that is being built, or looked for, meanwhile stays.

    Args:
        folder: where they are kept; it need not be there.
        wanted: the requests, each requirements and base as given to `build`, that may come again.
        spared_s: for so long after it was made, a request counts as wanted.

    Returns:
        How many environments were removed.

    Raises:
        OSError: the folder cannot be changed.
    """
    keep = {_digest(*request) for request in wanted}
    spared_from = time.time() - spared_s
    for use in [use for use in folder.glob(f"*{_USE}") if use.stem not in keep]:
        with _held(folder, use.stem, wait=False) as held:
            if held and use.stat().st_mtime < spared_from:
                use.unlink()
    removed, used = 0, _used(folder)
    there = {entry.name.partition(".")[0] for entry in folder.glob("[0-9a-f]*")}
    for key in there - used - {use.stem for use in folder.glob(f"*{_USE}")}:
        with _held(folder, key, wait=False) as held:
            if held and key not in _used(folder):
                place = folder / key
                removed += place.is_dir()
                (place / _COMPLETE).unlink(missing_ok=True)  # first: what is left is no environment
                shutil.rmtree(place, ignore_errors=True)
                (folder / f"{key}{_LOCK}").unlink(missing_ok=True)
                (folder / f"{key}{_HOLD}").unlink(missing_ok=True)
    return removed


def _note(use: Path, key: str) -> None:
    """Write down that a request led, or is about to lead, to a key."""
    with _held(use.parent, use.stem):
        keys = use.read_text("utf-8").split() if use.exists() else []
        _write(use, " ".join({*keys, key}))


def _used(folder: Path) -> set[str]:
    """The keys of all that a request led to."""
    return {key for use in folder.glob(f"*{_USE}") for key in use.read_text("utf-8").split()}


def _install(lock: Path, base: str, place: Path, say: Callable[[str], None]) -> None:
    """Build the environment of a lock."""
    shutil.rmtree(place, ignore_errors=True)  # of a build that was broken off
    say(f"building environment {place.name[:12]}")
    python = str(place / "bin" / "python")
    try:
        _uv(["venv", "--quiet", "--python", base, str(place)], lock.parent, say)
        _uv(["pip", "sync", "--quiet", "--python", python, str(lock)], lock.parent, say)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    _write(place / _COMPLETE, "")
    say(f"environment {place.name[:12]} is complete")


def _resolve(requirements: str, base: str, lock: Path, say: Callable[[str], None]) -> None:
    """Write the exact versions for these requirements to `lock`."""
    say("resolving requirements")
    wanted, found = lock.with_name(f".{lock.stem}.in"), lock.with_name(f".{lock.stem}.out")
    try:
        _write(wanted, "\n".join([requirements, *WORKER_NEEDS, ""]))
        compile_ = ["pip", "compile", "--quiet", "--no-header", "--no-annotate"]
        asked = ["--python", base, "--output-file", str(found), str(wanted)]
        _uv([*compile_, *asked], lock.parent, say)
        pinned = found.read_text("utf-8")
        for line in pinned.splitlines():
            say(f"  {line}")
        _write(lock, pinned)
    finally:
        wanted.unlink(missing_ok=True)
        found.unlink(missing_ok=True)


def _interpreter(base: str) -> str:
    found = shutil.which(base) if base else sys.executable
    if found is None:
        raise ModelLoadError(f"python: {base!r} is no program that can be run")
    return found


def check_interpreter(base: str) -> None:
    """Run `base` and return if it is a Python; not for a process that is to stay unharmed by it.

    Raises:
        ModelLoadError: it is none.
    """
    if _run(base, "print(6 * 7)").strip() != "42":
        raise ModelLoadError(f"python: {base!r} is no Python interpreter")


def _identity(base: str) -> str:
    """What of an interpreter an environment depends on: which one it is, and its version."""
    return _run(base, "import sys; print(sys.base_prefix, sys.version)")


def _run(base: str, code: str) -> str:
    """What an interpreter prints."""
    try:
        told = subprocess.run(  # noqa: S603 — the interpreter the version names
            [base, "-c", code],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
            check=True,
        )
    except subprocess.CalledProcessError:
        raise ModelLoadError(
            f"python: {base!r} is no Python interpreter, or a broken one"
        ) from None
    except (OSError, subprocess.SubprocessError) as error:
        raise ModelLoadError(f"python: {base!r} does not run: {error}") from None
    return told.stdout


def _uv(arguments: Sequence[str], folder: Path, say: Callable[[str], None]) -> None:
    """Run uv; what it says of files in `folder` is told by their names alone."""
    import uv

    done = subprocess.run(  # noqa: S603 — our own words around paths that we made
        [uv.find_uv_bin(), *arguments],
        env=_environ(os.environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    told = done.stdout.replace(f"{folder}{os.sep}", "")
    lines = [line for line in told.splitlines() if line.strip()]
    for line in lines:
        say(f"  {line}")
    if done.returncode:
        why = "\n".join(lines[:_TOLD_LINES]) or f"uv ended with status {done.returncode}"
        raise ModelLoadError(f"the requirements cannot be fulfilled: {why}")


def _environ(environ: Mapping[str, str]) -> dict[str, str]:
    """uv's: it downloads packages, never an interpreter, and finds no environment but its own."""
    kept = {name: value for name, value in environ.items() if name != "VIRTUAL_ENV"}
    return {**kept, "UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1", "NO_COLOR": "1",
            "UV_NO_CONFIG": "1"}  # fmt: skip


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    stage = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with stage.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    stage.rename(path)


@contextlib.contextmanager
def _held(folder: Path, key: str, *, wait: bool = True) -> Iterator[bool]:
    """One process at a time works on a key; the kernel lets go when it dies.

    Gives whether it is held, which it always is with `wait`.
    """
    path = folder / f"{key}{_HOLD}"
    held = gone = False
    while not held or gone:
        with path.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                break
            held = True
            gone = not os.fstat(file.fileno()).st_nlink  # `collect` was quicker
            if not gone:
                yield True
    if not held:
        yield False
