"""Keeps a process that runs a model's code from what is not its own, by Landlock.

Beyond its reach are then the files below the hidden folders, the memory, environment and open
files of other processes, and signals to them (these from Linux 6.12 on); for root too, and for all
that it starts. What it may still do is in docs/how-to/operate-the-platform.md.

Must never: be called once threads run, for it binds the calling one and those it starts.
Source: landlock(7) and include/uapi/linux/landlock.h of Linux 6.12.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

import msgspec

#: System calls, by the same number on every architecture that models run on.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG, _PATH_BENEATH = 1, 1
_PR_SET_NO_NEW_PRIVS = 38
#: Of the interface: before it, files that may not be opened could still be cut to nothing.
LEAST_VERSION = 3
_SCOPE_VERSION, _SCOPE_SIGNAL = 6, 1 << 1

_WRITE_FILE, _READ_FILE, _MAKE_SOCKET, _TRUNCATE = 1 << 1, 1 << 2, 1 << 9, 1 << 14
#: Opening a file in any way.
_FILE = _WRITE_FILE | _READ_FILE | _TRUNCATE
#: Likewise, and removing, making and moving anything in a folder (bits 4 to 13). Running a program
#: and listing a folder are left as they were.
_ALL = _FILE | sum(1 << bit for bit in range(4, 14))

#: What root keeps of its powers: to own and open files, to be another user, ports below 1024,
#: locked memory, priorities. The others lead around all this, or harm the machine.
_KEPT = sum(1 << capability for capability in (0, 1, 3, 4, 6, 7, 10, 14, 23))
_CAPABILITIES = struct.Struct("=6I")  # effective, permitted, inheritable, low halves before high
_CAPABILITY_HEADER = struct.pack("=Ii", 0x20080522, 0)


class Confinement(msgspec.Struct, frozen=True, kw_only=True):
    """What a process may not reach.

    Attributes:
        hidden: files, and folders whose files it may not open, change or add to; what is not there
            is nothing to hide. In the folders around them it may use what is there, and make
            nothing new.
        readable: folders in them whose files it may read all the same.
        writable: folders in them with which it may do as it likes.
        sockets: folders in them where it may bind a socket, and not replace one that is bound.
        fixed: folders outside of them that it may read and run, and not change or add to.
    """

    hidden: tuple[str, ...] = ()
    readable: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    sockets: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()


def version() -> int:
    """Of the kernel's interface; 0 where there is none or it is switched off."""
    return max(0, _syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG))


def confine(confinement: Confinement) -> None:
    """Confine this process, for good. What the kernel does not know (`version`) is left out.

    Raises:
        OSError: the kernel refused what it knows.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # an image of its memory would outlive it
    _libc("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    found = version()
    if found >= LEAST_VERSION:
        _confine_to(list(_rules(confinement)), _SCOPE_SIGNAL if found >= _SCOPE_VERSION else 0)
    _give_up_powers()


def _rules(confinement: Confinement) -> Iterator[tuple[Path, int]]:
    """Paths, and what may be done with what is there and below: all that is not hidden."""
    hidden = {Path(path).resolve() for path in confinement.hidden if Path(path).exists()}
    fixed = {Path(path).resolve() for path in confinement.fixed if Path(path).exists()}
    apart = hidden | fixed
    around = {Path("/")}.union(*(path.parents for path in apart))
    for folder in around:
        with contextlib.suppress(OSError):
            yield from ((p, _ALL) for p in folder.iterdir() if p not in around and p not in apart)
    given = [(Path(path), _READ_FILE) for path in confinement.readable]
    given += [(path, _READ_FILE) for path in fixed]
    given += [(Path(path), _ALL) for path in confinement.writable]
    given += [(Path(path), _MAKE_SOCKET) for path in confinement.sockets]
    # What is hidden stays so, though a folder around it was given.
    yield from ((p, may) for p, may in given if p.resolve() not in around | hidden)


def _confine_to(rules: list[tuple[Path, int]], scoped: int) -> None:
    attributes = struct.pack("=QQQ", _ALL, 0, scoped)[: 24 if scoped else 8]
    ruleset = _checked(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    try:
        for path, access in rules:
            _allow(ruleset, path, access)
        _checked(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: Path, access: int) -> None:
    """Nothing where there is nothing, or a link: what it leads to is met where it stands."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISLNK(mode):
            access &= _ALL if stat.S_ISDIR(mode) else _FILE
            _checked(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", access, descriptor), 0)
    finally:
        os.close(descriptor)


def _give_up_powers() -> None:
    """Of root; others have none. Programs that are started get none back (no new privileges)."""
    sets = ctypes.create_string_buffer(_CAPABILITIES.size)
    _libc("capget", _CAPABILITY_HEADER, sets)
    effective, permitted, _, high_effective, high_permitted, _ = _CAPABILITIES.unpack(sets.raw)
    if effective | permitted | high_effective | high_permitted:
        kept = (effective & _KEPT, permitted & _KEPT, 0, 0, 0, 0)
        _libc("capset", _CAPABILITY_HEADER, _CAPABILITIES.pack(*kept))


def _libc(function: str, *arguments: object) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), function)(*arguments) < 0:
        raise _error(function)


def _checked(number: int, *arguments: object) -> int:
    result = _syscall(number, *arguments)
    if result < 0:
        raise _error("landlock")
    return result


def _syscall(number: int, *arguments: object) -> int:
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    syscall.restype = ctypes.c_long
    return int(syscall(ctypes.c_long(number), *arguments))


def _error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"this process cannot be confined ({what}): {os.strerror(number)}")
