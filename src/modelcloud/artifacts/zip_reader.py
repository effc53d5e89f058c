"""Reads a zip file and gives its files and folders to a `Tree`.

Must never: trust one of its two lists of members (at the end, and before each) without the other,
or hold more of it in memory than one member's header.
Source of the format: PKWARE APPNOTE 6.3.10.
"""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import msgspec

from modelcloud.artifacts.decompress import CHUNK
from modelcloud.artifacts.tree import MAX_PATH_BYTES, Tree
from modelcloud.errors import TooLarge, UnsupportedMedia, UsageError

_END = struct.Struct("<4sHHHHIIH")
_END64_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQHHIIQQQQ")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_MAX_COMMENT = 0xFFFF
_STORED, _DEFLATED = 0, 8
_ENCRYPTED, _UTF8 = 0x1, 0x800


class _Member(msgspec.Struct, frozen=True):
    raw_name: bytes
    name: str
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    offset: int
    mode: int


def read_zip(source: BinaryIO, tree: Tree, max_members: int) -> None:
    """Write every member to `tree`.

    Raises:
        UsageError: the file is damaged, or holds what is not accepted.
        UnsupportedMedia: a member is encrypted, or compressed in a way that is not read here.
        TooLarge: it is over a cap.
    """
    members = _members(source, max_members)
    end = 0
    for member in sorted(members, key=lambda member: member.offset):
        if member.offset != end and (member.offset < end or not end):
            raise _damaged("its members overlap, or it does not start with one")
        end = _read_member(source, member, tree)


def _read_member(source: BinaryIO, member: _Member, tree: Tree) -> int:
    """Write one member; returns where its data ends."""
    shown = ascii(member.name[:200])
    kind = stat.S_IFMT(member.mode)
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
        what = "a symbolic link" if kind == stat.S_IFLNK else "no regular file"
        raise UsageError(f"{shown} is {what}; accepted: regular files and folders")
    if member.flags & _ENCRYPTED or member.method not in {_STORED, _DEFLATED}:
        raise UnsupportedMedia(
            f"{shown} is encrypted or packed by method {member.method}; accepted: stored, deflated"
        )
    _seek(source, member.offset)
    header = _unpacked(_LOCAL, source, b"PK\3\4")
    name = _exactly(source, header[9])
    if name != member.raw_name or header[3] != member.method:
        raise _damaged(f"its two entries of {shown} differ")
    source.seek(header[10], 1)
    start = source.tell()
    if member.name.endswith("/"):
        if member.size:
            raise UsageError(f"the folder {shown} has a size")
        tree.folder(member.name)
    elif kind == stat.S_IFDIR:
        raise _damaged(f"{shown} is a folder with the name of a file")
    else:
        tree.file(member.name, _content(source, member))
    return start + member.packed


def _content(source: BinaryIO, member: _Member) -> Iterator[bytes]:
    crc = size = 0
    pieces = _packed(source, member.packed)
    for piece in _inflated(pieces) if member.method == _DEFLATED else pieces:
        crc = zlib.crc32(piece, crc)
        size += len(piece)
        if size > member.size:
            break
        yield piece
    if size != member.size or crc != member.crc:
        raise _damaged(f"{member.name[:200]!r} does not match its size and checksum")


def _packed(source: BinaryIO, left: int) -> Iterator[bytes]:
    while left:
        piece = source.read(min(left, CHUNK))
        if not piece:
            raise _damaged("it is cut short")
        left -= len(piece)
        yield piece


def _inflated(pieces: Iterator[bytes]) -> Iterator[bytes]:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        for piece in pieces:
            data = piece
            while data:
                yield inflater.decompress(data, CHUNK)
                data = inflater.unconsumed_tail
        yield inflater.flush()
    except zlib.error as error:
        raise _damaged("its packed data cannot be read", str(error)) from None
    if not inflater.eof or inflater.unused_data:
        raise _damaged("packed data that does not end where it should")


def _members(source: BinaryIO, max_members: int) -> list[_Member]:
    """The list at the end of the file."""
    count, size, start, stop = _end(source)
    if count > max_members or size > max_members * (_CENTRAL.size + 2 * MAX_PATH_BYTES):
        raise TooLarge(f"more than {max_members} files and folders")
    if start + size != stop:
        raise _damaged("its list of members does not stand before its end")
    _seek(source, start)
    members = [_member(source) for _ in range(count)]
    if source.tell() != stop:
        raise _damaged("its list of members is longer than it says")
    return members


def _end(source: BinaryIO) -> tuple[int, int, int, int]:
    """Count, size and place of the list of members, and where what follows it starts."""
    length = source.seek(0, 2)
    tail_start = max(0, length - _END.size - _MAX_COMMENT)
    source.seek(tail_start)
    tail = source.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < _END.size:
        raise _damaged("it is cut short: its end is not there")
    _, disk, first_disk, here, count, size, start, comment = _END.unpack_from(tail, at)
    if at + _END.size + comment != len(tail):
        raise _damaged("something follows its end")
    stop = tail_start + at
    if 0xFFFF in {here, count} or 0xFFFFFFFF in {size, start}:
        if stop < _END64_LOCATOR.size:
            raise _damaged("its end cannot be read")
        source.seek(stop - _END64_LOCATOR.size)
        (_, _, place, _) = _unpacked(_END64_LOCATOR, source, b"PK\6\7")
        _seek(source, place)
        found = _unpacked(_END64, source, b"PK\6\6")
        disk, first_disk, here, count, size, start = found[4:]
        stop = place
    if disk or first_disk or here != count:
        raise UnsupportedMedia("a zip of several parts; accepted: one file")
    return count, size, start, stop


def _member(source: BinaryIO) -> _Member:
    (_, made_by, _, flags, method, _, _, crc, packed, size, name_length, extra_length,
     comment_length, _, _, attributes, offset) = _unpacked(_CENTRAL, source, b"PK\1\2")  # fmt: skip
    if name_length > MAX_PATH_BYTES:
        raise TooLarge(f"a name of {name_length} bytes; accepted: up to {MAX_PATH_BYTES}")
    raw_name = _exactly(source, name_length)
    extra = _exactly(source, extra_length)
    _exactly(source, comment_length)
    size, packed, offset = _wide(extra, size, packed, offset)
    unix = made_by >> 8 == 3
    return _Member(
        raw_name=raw_name,
        name=_text(raw_name, flags),
        flags=flags,
        method=method,
        crc=crc,
        packed=packed,
        size=size,
        offset=offset,
        mode=attributes >> 16 if unix else 0,
    )


def _wide(extra: bytes, *narrow: int) -> Iterator[int]:
    """Size, packed size and offset, from the zip64 field where they do not fit 32 bits."""
    wide = b""
    while len(extra) >= 4:
        tag, length = struct.unpack_from("<HH", extra)
        if tag == 1:
            wide = extra[4 : 4 + length]
        extra = extra[4 + length :]
    for number in narrow:
        if number != 0xFFFFFFFF:
            yield number
            continue
        if len(wide) < 8:
            raise _damaged("the size of a large member is missing")
        yield int.from_bytes(wide[:8], "little")
        wide = wide[8:]


def _text(raw: bytes, flags: int) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        if flags & _UTF8:
            raise _damaged(f"the name {raw[:200]!r} is no UTF-8 text") from None
        return raw.decode("cp437")


def _unpacked(form: struct.Struct, source: BinaryIO, magic: bytes) -> tuple[int, ...]:
    fields = form.unpack(_exactly(source, form.size))
    if fields[0] != magic:
        raise _damaged("a header is not where it should be")
    return fields


def _seek(source: BinaryIO, place: int) -> None:
    source.seek(min(place, 1 << 62))  # beyond the end there is nothing to read, and no error


def _exactly(source: BinaryIO, size: int) -> bytes:
    data = source.read(size)
    if len(data) != size:
        raise _damaged("it is cut short")
    return data


def _damaged(what: str, detail: str | None = None) -> UsageError:
    return UsageError(f"the zip file is damaged: {what}", detail=detail)
