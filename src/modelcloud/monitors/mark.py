"""What tells one state of a remote model from the next, and what a done-file says of it.

Must never: touch network, files or clock; these are decisions on plain data.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from modelcloud.errors import UsageError

#: The most that is read of a done-file, and of a `.sha256` beside a model.
DONE_FILE_LIMIT = 1024 * 1024
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


class Mark(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a remote place says of a file or folder. A field it does not say is empty.

    Attributes:
        modified: seconds since 1970, by the remote's clock.
        size: bytes; of a folder, of all files in it.
        tag: etag, checksum, version or listing: another text is another content.
        digest: sha256 of the content, where it was read.
        exact: equal marks mean equal content. Without it two changes within one second may look
            the same, so that a done-file is read each time.
        folder: it is one.
    """

    modified: float | None = None
    size: int | None = None
    tag: str = ""
    digest: str = ""
    exact: bool = False
    folder: bool = False


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """One look at a remote place: its done-file, and the model, if there is one yet."""

    done: Mark
    model: Mark | None = None


class Entry(msgspec.Struct, frozen=True):
    """A file in a remote folder: path below it, bytes, and whatever tells its state."""

    path: str
    size: int
    state: str


class Promise(msgspec.Struct, frozen=True, kw_only=True):
    """What a producer says of its model; a field it does not say is empty."""

    sha256: str = ""
    size: int | None = None
    version: str = ""


def folder_mark(entries: Iterable[Entry]) -> Mark:
    """The mark of a folder with these files, in any order."""
    listed = sorted((entry.path, entry.size, entry.state) for entry in entries)
    digest = hashlib.sha256(msgspec.json.encode(listed)).hexdigest()
    return Mark(size=sum(size for _, size, _ in listed), tag=digest, folder=True)


def differs(before: Mark | None, now: Mark | None) -> bool:
    """Whether any of time, size, tag and content is another one."""
    if before is None or now is None:
        return before is not now
    if before.digest and now.digest and before.digest != now.digest:
        return True
    fields = ("modified", "size", "tag", "folder")
    return any(getattr(before, field) != getattr(now, field) for field in fields)


def changed(before: Seen, now: Seen) -> bool:
    """Whether the done-file or the model is another one."""
    return differs(before.done, now.done) or differs(before.model, now.model)


def is_new(published: Seen | None, now: Seen, before: Seen | None) -> bool:
    """Whether what is there now is to be pulled.

    The done-file decides. One that looks the same may still be another one, written within the
    same second as the last: it then vouches for a model that is another one too, is not newer than
    the done-file, and stands still.

    Args:
        published: what was there when the local model was pulled.
        now: what is there.
        before: what was there at the last look.
    """
    if published is None or differs(published.done, now.done):
        return True
    return (
        differs(published.model, now.model)
        and not is_ahead(published, now)
        and before is not None
        and not changed(before, now)
    )


def is_ahead(published: Seen, now: Seen) -> bool:
    """Whether the model changed and its done-file did not: the producer is not done with it."""
    if differs(published.done, now.done) or not differs(published.model, now.model):
        return False
    if now.model is None or now.model.modified is None or now.done.modified is None:
        return True
    return now.model.modified > now.done.modified


def promise_of(content: bytes) -> Promise:
    """What a done-file says: nothing, if it is empty or any text; or a JSON object.

    Raises:
        UsageError: it begins as a JSON object and is none, or a field does not fit.
    """
    if not content.lstrip().startswith(b"{"):
        return Promise()
    try:
        fields: dict[str, Any] = msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise UsageError(
            "the done-file begins like JSON and is none, or not all of it is there yet; accepted: "
            'an empty file, any text, or {"sha256": …, "size": …, "version": …}'
        ) from None
    sha256, size, version = (fields.get(name) for name in ("sha256", "size", "version"))
    if sha256 is not None and not (isinstance(sha256, str) and _SHA256.fullmatch(sha256)):
        raise UsageError("the done-file's sha256 is no text of 64 hexadecimal digits")
    if size is not None and not (type(size) is int and size >= 0):
        raise UsageError("the done-file's size is no number of bytes")
    if not isinstance(version, str | int | None):
        raise UsageError("the done-file's version is neither a text nor a whole number")
    return Promise(
        sha256=(sha256 or "").lower(), size=size, version="" if version is None else str(version)
    )


def sha256_of_text(content: bytes, name: str) -> str:
    """The digest of the file `name` in what `sha256sum` writes: `<digest>  <name>`, one a line.

    Raises:
        UsageError: there is none.
    """
    lines = [line.split() for line in content.decode("utf-8", "replace").splitlines()]
    lines = [line for line in lines if line and _SHA256.fullmatch(line[0])]
    named = [line for line in lines if line[-1].lstrip("*").rpartition("/")[2] == name]
    if not named and len(lines) == 1 and len(lines[0]) == 1:
        named = lines
    if len(named) != 1:
        raise UsageError(
            f"{name}.sha256 does not hold one digest of {name}; accepted: what `sha256sum {name}` "
            "writes, or 64 hexadecimal digits alone"
        )
    return named[0][0].lower()
