"""Expands a compressed stream piece by piece, and takes nothing for its end but its end.

Must never: expand more at a time than it was asked for, or stop before a checksum was compared.
(The file objects of the standard library end at bytes that follow a bz2 or xz stream.)
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Protocol

from modelcloud.errors import TooLarge, UnsupportedMedia, UsageError

CHUNK = 256 * 1024
XZ_MEMORY = 256 * 1024 * 1024  # `xz -9` needs 65 MiB
ZSTD_WINDOW = 128 * 1024 * 1024
#: A zstd decoder has no limit on its output; of so many bytes it makes up to 32 MiB.
ZSTD_PIECE = 1024

#: First bytes of a stream → its kind.
MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


class _Decoder(Protocol):
    """As `bz2.BZ2Decompressor`."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Gzip:
    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def needs_input(self) -> bool:
        return not self._zlib.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)


class _Zstd:
    def __init__(self, library: Any) -> None:
        self._zstd = library.ZstdDecompressor(max_window_size=ZSTD_WINDOW).decompressobj()
        self._waiting = memoryview(b"")

    @property
    def eof(self) -> bool:
        return bool(self._zstd.eof)

    @property
    def needs_input(self) -> bool:
        return not self._waiting

    @property
    def unused_data(self) -> bytes:
        return bytes(self._zstd.unused_data) + bytes(self._waiting)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        if data:
            self._waiting = memoryview(data)
        piece, self._waiting = self._waiting[:ZSTD_PIECE], self._waiting[ZSTD_PIECE:]
        return bytes(self._zstd.decompress(piece))


def expand(source: BinaryIO, kind: str) -> Iterator[bytes]:
    """The expanded bytes of all streams of a file, one behind the other.

    Args:
        source: at its start.
        kind: one of `MAGIC`'s values.

    Raises:
        UsageError: it is damaged, cut short, or followed by something else.
        UnsupportedMedia: zstd, and this installation cannot read it.
    """
    new, broken = _decoders(kind)
    decoder = new()
    data = b""
    while True:
        if decoder.eof:
            data = decoder.unused_data or source.read(CHUNK)
            if not data:
                return
            decoder = new()
        elif decoder.needs_input:
            data = source.read(CHUNK)
            if not data:
                raise UsageError(f"the {kind} data is cut short")
        else:
            data = b""
        try:
            out = decoder.decompress(data, CHUNK)
        except broken as error:
            raise UsageError(
                f"the {kind} data is damaged, or something follows it", detail=str(error)
            ) from None
        if out:
            yield out


def bounded(chunks: Iterator[bytes], limit: int) -> Iterator[bytes]:
    """The same chunks.

    Raises:
        TooLarge: they are more than `limit` bytes together.
    """
    for chunk in chunks:
        limit -= len(chunk)
        if limit < 0:
            raise TooLarge("the archive expands to more than is accepted")
        yield chunk


def _decoders(kind: str) -> tuple[Callable[[], _Decoder], tuple[type[Exception], ...]]:
    """What makes a decoder, and what it raises for damaged data."""
    if kind == "gzip":
        return _Gzip, (zlib.error,)
    if kind == "bzip2":
        return bz2.BZ2Decompressor, (OSError, ValueError)
    if kind == "xz":
        return (
            lambda: lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=XZ_MEMORY),
            (lzma.LZMAError,),
        )
    try:
        import zstandard
    except ImportError:
        raise UnsupportedMedia(
            "zstd cannot be read here (the package zstandard is not installed); "
            "accepted: tar, tar.gz, tar.bz2, tar.xz, zip"
        ) from None
    return lambda: _Zstd(zstandard), (zstandard.ZstdError,)
