"""Reads single fields of a protobuf file by seeking past the rest, which may be gigabytes.

Must never: hold more than one small field in memory, or trust a length that leads beyond its
message. Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

#: Of a text or a packed field that is read whole.
MAX_TEXT = 1024 * 1024


class Damaged(ValueError):
    """These bytes are no message of this kind."""


class Span(NamedTuple):
    """Where a message, or a field of bytes, is in the file."""

    start: int
    end: int


def whole(file: BinaryIO) -> Span:
    """The message that is all of a file."""
    return Span(0, file.seek(0, 2))


def fields(file: BinaryIO, message: Span, *numbers: int) -> Iterator[tuple[int, int | Span]]:
    """The fields of these numbers, in order: their number, and a value or where it is.

    Raises:
        Damaged: they are no fields.
    """
    place = message.start
    while place < message.end:
        file.seek(place)
        key = _varint(file)
        number, wire = key >> 3, key & 7
        found: int | Span
        if wire == 0:
            found = _varint(file)
            place = file.tell()
        elif wire == 2:
            length = _varint(file)
            found = Span(file.tell(), file.tell() + length)
            place = found.end
        elif wire in {1, 5}:
            found = Span(file.tell(), file.tell() + (8 if wire == 1 else 4))
            place = found.end
        else:
            raise Damaged(f"a field of kind {wire}")
        if place > message.end or not number:
            raise Damaged("a field that is longer than its message")
        if number in numbers:
            yield number, found


def spans(file: BinaryIO, message: Span, number: int) -> Iterator[Span]:
    """The messages, texts or bytes of one field."""
    for _, found in fields(file, message, number):
        if isinstance(found, Span):
            yield found


def first(file: BinaryIO, message: Span, number: int) -> Span:
    """The first message of one field.

    Raises:
        Damaged: there is none.
    """
    for span in spans(file, message, number):
        return span
    raise Damaged(f"field {number} is missing")


def text(file: BinaryIO, message: Span, number: int) -> str:
    """The text of a field; empty if there is none."""
    for span in spans(file, message, number):
        return read_text(file, span)
    return ""


def read_text(file: BinaryIO, span: Span) -> str:
    """What stands there, as text."""
    if span.end - span.start > MAX_TEXT:
        raise Damaged("a text of more than a megabyte")
    file.seek(span.start)
    try:
        return file.read(span.end - span.start).decode()
    except UnicodeDecodeError:
        raise Damaged("a text that is not UTF-8") from None


def number(file: BinaryIO, message: Span, field: int, default: int | None = None) -> int | None:
    """The whole number of a field, signed in 64 bits."""
    for _, found in fields(file, message, field):
        if isinstance(found, int):
            return found - (1 << 64) if found >= 1 << 63 else found
    return default


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            break
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise Damaged("a number without end")
