"""Reads a tar stream (ustar, GNU and pax names) and gives its files and folders to a `Tree`.

Must never: take a stream for whole that lacks its end-of-archive blocks or holds anything after
them, or make a link, device or any other thing but a file or a folder.
Source of the format: POSIX.1-2017, pax, "ustar Interchange Format"; GNU tar manual, "Standard".
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from modelcloud.artifacts.tree import Tree
from modelcloud.errors import UsageError

BLOCK = 512
_ZEROS = bytes(BLOCK)
#: Of one extended header; names are far shorter.
MAX_EXTENDED = 64 * 1024
#: Zeros after the end; GNU tar fills up to 10 KiB, tape formats to more.
MAX_PADDING = 16 * 1024 * 1024

_FILES, _FOLDER = (b"0", b"\0", b"7"), b"5"
_PAX, _PAX_GLOBAL, _GNU_NAME = b"x", b"g", b"L"
_REFUSED = {
    b"1": "a hard link", b"2": "a symbolic link", b"3": "a character device",
    b"4": "a block device", b"6": "a named pipe", b"K": "a link", b"S": "a sparse file",
}  # fmt: skip


class _Header(msgspec.Struct, frozen=True):
    name: str
    kind: bytes
    size: int


def looks_like_tar(start: bytes) -> bool:
    """Whether a stream that starts like this (at least 512 bytes) is a tar."""
    return len(start) >= BLOCK and (
        start[257:262] == b"ustar" or _checksum_fits(start[:BLOCK]) or start[:BLOCK] == _ZEROS
    )


def read_tar(chunks: Iterator[bytes], tree: Tree) -> None:
    """Write every member to `tree`.

    Raises:
        UsageError: the stream is damaged or cut short, or holds what is not accepted.
        TooLarge: it is over a cap of the tree.
    """
    stream = _Stream(chunks)
    name = ""
    size: int | None = None
    while (block := stream.take(BLOCK)) != _ZEROS:
        header = _header(block)
        if header.kind in {_PAX, _PAX_GLOBAL, _GNU_NAME}:
            if header.size > MAX_EXTENDED:
                raise UsageError(f"an extended header of {header.size} bytes")
            data = stream.take(header.size)
            stream.skip_padding(header.size)
            if header.kind == _GNU_NAME:
                name = _text(data.rstrip(b"\0"))
            elif header.kind == _PAX:
                records = _pax(data)
                name = records.get("path", name)
                size = _pax_size(records["size"]) if "size" in records else size
            elif {"path", "size"} & _pax(data).keys():
                raise UsageError("a global header that names or sizes files")
            continue
        name, size = name or header.name, header.size if size is None else size
        if header.kind in _REFUSED:
            raise UsageError(
                f"{name[:200]!r} is {_REFUSED[header.kind]}; accepted: regular files and "
                "folders (leave environments out; requirements.txt makes one)"
            )
        if header.kind == _FOLDER or (header.kind in _FILES and name.endswith("/")):
            if size:
                raise UsageError(f"the folder {name[:200]!r} has a size")
            tree.folder(name)
        elif header.kind in _FILES:
            tree.file(name, stream.pieces(size))
            stream.skip_padding(size)
        else:
            raise UsageError(f"{name[:200]!r} is of an unknown kind {header.kind!r}")
        name, size = "", None
    if name or size is not None:
        raise UsageError("the archive ends with a header that belongs to no file")
    if stream.take(BLOCK) != _ZEROS:
        raise UsageError("the archive has one block of zeros where its end has two")
    stream.only_zeros_follow()


class _Stream:
    """Chunks of any size, taken in the sizes that the format wants."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def pieces(self, size: int) -> Iterator[bytes]:
        """The next `size` bytes, as they come."""
        while size:
            if not self._rest:
                chunk = next(self._chunks, b"")
                if not chunk:
                    raise UsageError("the archive is cut short")
                self._rest = memoryview(chunk)
            piece, self._rest = self._rest[:size], self._rest[size:]
            size -= len(piece)
            yield bytes(piece)

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        return b"".join(self.pieces(size))

    def skip_padding(self, size: int) -> None:
        """Move on to the block after `size` bytes of content."""
        self.take(-size % BLOCK)

    def only_zeros_follow(self) -> None:
        """Raise unless nothing but a little filling is left."""
        left = MAX_PADDING
        rest = bytes(self._rest)
        while rest:
            left -= len(rest)
            if rest.strip(b"\0") or left < 0:
                raise UsageError("something follows the end of the archive")
            rest = next(self._chunks, b"")


def _header(block: bytes) -> _Header:
    if not _checksum_fits(block):
        raise UsageError("the archive is damaged: a header does not match its checksum")
    name = _text(block[:100].split(b"\0", 1)[0])
    if block[257:263] == b"ustar\0" and (prefix := block[345:500].split(b"\0", 1)[0]):
        name = f"{_text(prefix)}/{name}"
    return _Header(name, block[156:157], _number(block[124:136]))


def _checksum_fits(block: bytes) -> bool:
    try:
        expected = _number(block[148:156])
    except UsageError:
        return False
    return sum(block[:148]) + sum(block[156:]) + 8 * ord(" ") == expected


def _number(field: bytes) -> int:
    if field[0] == 0x80:  # of GNU tar, for what octal digits cannot hold
        return int.from_bytes(field[1:], "big")
    digits = field.split(b"\0", 1)[0].strip(b" ")
    if digits.strip(b"01234567"):
        raise UsageError(f"the archive is damaged: {field!r} is no number")
    return int(digits or b"0", 8)


def _pax(data: bytes) -> dict[str, str]:
    records = {}
    while data:
        head, space, _ = data.partition(b" ")
        length = int(head) if head.isdigit() and len(head) < 8 else 0
        key, equals, value = data[len(head) + 1 : length - 1].partition(b"=")
        if not (space and equals) or data[length - 1 : length] != b"\n":
            raise UsageError("the archive is damaged: an extended header cannot be read")
        if key.startswith(b"GNU.sparse"):
            raise UsageError("a sparse file; accepted: archives made without --sparse")
        if key in {b"path", b"size"}:
            records[key.decode()] = _text(value)
        data = data[length:]
    return records


def _pax_size(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise UsageError(f"the archive is damaged: {text[:40]!r} is no size")
    return int(text)


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise UsageError(f"the name {data[:200]!r} is no UTF-8 text") from None
