"""Files and directories: paths in the function; data URIs, URLs or upload paths in JSON.

Must never: open a path that a client named outside the upload area, symlinks followed, nor reach
the network but by `sdk.fetch`.
"""

from __future__ import annotations

import os
import re
import stat
import weakref
from pathlib import Path
from typing import Any

from modelcloud.sdk.data_types.base import MISSING, DataType, declared_wrong, describe
from modelcloud.sdk.data_types.data_uri import is_data_uri, read_data_uri, write_data_uri
from modelcloud.sdk.data_types.limits import whole_limits

DEFAULT_MAX_BYTES = 64 * 1024 * 1024
FETCH_TIMEOUT_S = 30.0
#: What a model may return for a file.
RETURNED = "bytes, or the path of a regular file"

_EXTENSION = re.compile(r"\.?[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*")

_upload_dir: Path | None = None
_temporary_dir: str | None = None  # None: where the system puts such files


def set_upload_dir(folder: str | os.PathLike[str] | None) -> None:
    """Name the one folder below which clients may name files; None (as at first) for no such."""
    global _upload_dir  # noqa: PLW0603 — one per process, set once by the worker before it serves
    _upload_dir = None if folder is None else Path(folder).resolve(strict=True)


def set_temporary_dir(folder: str) -> None:
    """Have temporary files made in this folder, which someone removes when this process is gone."""
    global _temporary_dir  # noqa: PLW0603 — likewise
    _temporary_dir = folder


def is_url(value: str) -> bool:
    """Whether it says it is an http(s) URL."""
    return value[:8].lower().startswith(("http://", "https://"))


class TemporaryPath(str):
    """The path of a temporary file that is deleted when this text is no longer referred to.

    A model that needs the file for longer keeps this object, or moves the file.
    """

    __slots__ = ("__weakref__",)

    @classmethod
    def holding(cls, data: bytes, extension: str) -> TemporaryPath:
        """A new file, readable by this user only, with these bytes."""
        import tempfile  # heavy; most models take no files

        handle, name = tempfile.mkstemp(extension, "modelcloud-", _temporary_dir)
        path = cls(name)
        weakref.finalize(path, _unlink, name)
        with os.fdopen(handle, "wb") as out:
            out.write(data)
        return path


def _unlink(name: str) -> None:
    Path(name).unlink(missing_ok=True)


class file(DataType):
    """A file: in the function the `str` path of a regular file.

    As an input it is accepted as a data URI, as an http(s) URL of a public host, or as a path
    inside the upload area, relative to it or absolute. What came as data or URL lies in a temporary
    file that lives as long as its path is referred to. As an output a model returns bytes or a
    path, and the content travels as a data URI.

    Args:
        extension: such as `.h5`; upload paths, URL paths and returned paths must end in it (in any
            case), and temporary files do.
        max_bytes: the greatest size, of what is fetched and of what is returned.
        description: shown to users of the service.
        default: in JSON form; resolved when it is used. Without one the field is required.
    """

    type_name = "file"
    converts_in = True
    converts_out = True

    def __init__(
        self,
        *,
        extension: str | None = None,
        max_bytes: int = DEFAULT_MAX_BYTES,
        description: str | None = None,
        default: Any = MISSING,
    ) -> None:
        whole_limits("file", 1, {"max_bytes": max_bytes})
        if extension is not None:
            if not isinstance(extension, str) or not _EXTENSION.fullmatch(extension):
                raise declared_wrong("file", f"extension is {describe(extension)}", "such as '.h5'")
            extension = f".{extension.lstrip('.')}"
        self.extension, self.max_bytes = extension or "", max_bytes
        super().__init__(description=description, default=default)

    def _accepted(self) -> str:
        kind = f"a {self.extension} file" if self.extension else "a file"
        return (
            f"{kind} of at most {_size(self.max_bytes)}, as a base64 data URI, an http(s) URL of a "
            "public host, or a path inside the upload area"
        )

    def _json_type(self) -> Any:
        return str

    def _json_schema(self) -> dict[str, Any]:
        return {"type": "string", "format": "uri-reference"}

    def _deserialize(self, value: Any) -> str:
        if not isinstance(value, str):
            raise self.refused(describe(value))
        if is_data_uri(value):
            try:
                data = read_data_uri(value)
            except ValueError as error:
                raise self.refused(str(error)) from None
            if len(data) > self.max_bytes:
                raise self.refused(f"{len(data)} bytes")
        elif is_url(value):
            from modelcloud.sdk.fetch import fetch  # pulls in ssl, which most models never need

            self._check_extension(value.partition("#")[0].partition("?")[0])
            data = fetch(value, max_bytes=self.max_bytes, timeout_s=FETCH_TIMEOUT_S)
        else:
            path, status = uploaded(value, self)
            self._check_extension(path.name)
            if not stat.S_ISREG(status.st_mode):
                raise self.refused(f"{describe(value)}, which is no regular file")
            if status.st_size > self.max_bytes:
                raise self.refused(f"a file of {status.st_size} bytes")
            return str(path)
        return TemporaryPath.holding(data, self.extension)

    def _serialize(self, value: Any) -> str:
        import mimetypes  # likewise

        name = ""
        if isinstance(value, (bytes, bytearray, memoryview)):
            data = bytes(value)
        elif isinstance(value, (str, os.PathLike)):
            name = os.fsdecode(value)
            self._check_extension(name)
            data = self._content(name)
        else:
            raise self.refused(describe(value), RETURNED)
        if len(data) > self.max_bytes:
            raise self.refused("a larger file", f"at most {_size(self.max_bytes)}")
        media_type, encoding = mimetypes.guess_type(name or f"x{self.extension}", strict=False)
        return write_data_uri(data, (not encoding and media_type) or "application/octet-stream")

    def _content(self, name: str) -> bytes:
        try:
            # not to wait for a FIFO's writer
            with open(os.open(name, os.O_RDONLY | os.O_NONBLOCK), "rb") as source:  # noqa: PTH123 — a descriptor
                if stat.S_ISREG(os.fstat(source.fileno()).st_mode):
                    return source.read(self.max_bytes + 1)
        except (OSError, ValueError):
            pass
        # the path is the server's own: not for the client to see
        raise self.refused("a path that cannot be read", RETURNED)

    def _check_extension(self, path: str) -> None:
        if self.extension and not path.lower().endswith(self.extension.lower()):
            raise self.refused(
                f"{describe(Path(path).name)}, which does not end in {self.extension}"
            )

    def _check(self, default: Any) -> Any:
        return _checked_default(self, default)

    def _limits(self) -> dict[str, Any]:
        limits: dict[str, Any] = {"extension": self.extension} if self.extension else {}
        return {**limits, "maxBytes": self.max_bytes}

    def _example(self) -> str:
        return write_data_uri(b"example\n", "application/octet-stream")


class directory(DataType):
    """A directory inside the upload area: in the function its `str` path.

    It does not travel: data URIs are refused as there is no directory in one, URLs because archives
    that clients name are not unpacked. As an output it must lie inside the upload area too, and
    its path relative to that is the answer.
    """

    type_name = "directory"
    converts_in = True
    converts_out = True

    def _accepted(self) -> str:
        return "the path of a directory inside the upload area"

    def _json_type(self) -> Any:
        return str

    def _json_schema(self) -> dict[str, Any]:
        return {"type": "string"}

    def _deserialize(self, value: Any) -> str:
        if not isinstance(value, str):
            raise self.refused(describe(value))
        if is_data_uri(value):
            raise self.refused("a data URI (a directory does not travel in a request)")
        if is_url(value):
            raise self.refused("a URL (archives are not fetched and unpacked for a client)")
        path, status = uploaded(value, self)
        if not stat.S_ISDIR(status.st_mode):
            raise self.refused(f"{describe(value)}, which is no directory")
        return str(path)

    def _serialize(self, value: Any) -> str:
        if not isinstance(value, (str, os.PathLike)):
            raise self.refused(describe(value))
        path = Path(self._deserialize(os.fspath(value)))
        assert _upload_dir is not None
        return path.relative_to(_upload_dir).as_posix()

    def _check(self, default: Any) -> Any:
        return _checked_default(self, default)

    def _limits(self) -> dict[str, Any]:
        return {}

    def _example(self) -> str:
        return "example"  # no name is sure to be there


def _size(count: int) -> str:
    return f"{count} bytes" if count < 2**20 else f"{count / 2**20:g} MiB"


def uploaded(value: str, kind: DataType) -> tuple[Path, os.stat_result]:
    """The real path of what a client names, relative to the upload area or absolute inside it.

    Whether something exists outside the area does not show in the error.

    Raises:
        InvalidInput: there is no such area, or nothing there of this name that lies strictly
            inside it once symlinks are followed.
    """
    if _upload_dir is None:
        raise kind.refused(f"{describe(value)}, a path, and this server has no upload area")
    try:
        path = (_upload_dir / value).resolve()
    except (OSError, ValueError, RuntimeError):  # a NUL, a name too long, a symlink loop
        raise kind.refused(f"{describe(value)}, which is no path") from None
    if path == _upload_dir or not path.is_relative_to(_upload_dir):
        raise kind.refused(f"{describe(value)}, which is not inside the upload area")
    try:
        return path, path.stat()
    except OSError:
        raise kind.refused(f"{describe(value)}, which does not exist") from None


def _checked_default(kind: DataType, default: Any) -> str:
    """A default's form only: the file itself is for the worker that uses it to find."""
    if isinstance(default, os.PathLike):
        default = os.fspath(default)
    if not isinstance(default, str) or not default:
        raise declared_wrong(kind.type_name, f"default is {describe(default)}", kind.accepted)
    return default
