"""Files and folders of any place that fsspec reaches: s3, sftp, webhdfs, hdfs, local and more.

Must never: take an answer from a cache: a change would be missed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from modelcloud.errors import (
    ModelcloudError,
    NotFound,
    Overloaded,
    Unauthorized,
    UnsupportedMedia,
    UsageError,
)
from modelcloud.monitors.address import only_unguarded
from modelcloud.monitors.mark import Entry, Mark, folder_mark
from modelcloud.monitors.source import MAX_DEPTH, MAX_ENTRIES, SourceSpec, hide_password, is_local

#: Protocols whose every connection is made by Python, where the rule for addresses holds it.
_GUARDED = {"s3", "s3a", "sftp", "ssh", "webhdfs"}
#: Names under which file systems tell a time of modification, and a version of the content.
_TIMES = ("mtime", "LastModified", "modificationTime", "last_modified", "modified", "updated")
_TAGS = ("ETag", "etag", "VersionId", "md5Hash", "content_md5", "checksum", "ino")


class Fsspec:
    """See `Source`.

    Args:
        url: of the folder.
        spec: for its storage options and its rule for addresses.
    """

    def __init__(self, url: str, spec: SourceSpec) -> None:
        protocol = url.partition("://")[0]
        if protocol not in _GUARDED or "::" in url:
            only_unguarded(spec.addresses, f"the address {hide_password(url)}")
        try:
            import fsspec  # type: ignore[import-untyped]
        except ImportError:
            raise UnsupportedMedia(
                f"{protocol} needs the package fsspec and its family, which are not installed; "
                "run: pip install 'modelcloud[monitors]'"
            ) from None
        options = dict(spec.options)
        if protocol in {"sftp", "ssh"}:
            # Else sshfs would talk to any machine that claims to be the host.
            options.setdefault("known_hosts", ())
        else:
            options["use_listings_cache"] = False  # sshfs has none, and no such option
        self._shown = hide_password(url)
        with self._told():
            self._fs, self._folder = fsspec.core.url_to_fs(url, skip_instance_cache=True, **options)
        self._exact = protocol in {"s3", "s3a", "webhdfs"}

    def marks(self, *names: str) -> list[Mark | None]:
        """See `Source.marks`."""
        return [self._mark(self._path(name)) for name in names]

    def read(self, name: str, limit: int) -> bytes | None:
        """See `Source.read`."""
        with self._told():
            try:
                with self._fs.open(self._path(name), "rb", cache_type="none") as file:
                    content: bytes = file.read(limit + 1)
            except FileNotFoundError:
                return None
        if len(content) > limit:
            raise UsageError(f"{name} holds more than {limit} bytes")
        return content

    def fetch(self, name: str, into: Path) -> None:
        """See `Source.fetch`."""
        path = self._path(name)
        with self._told():
            info = self._fs.info(path)
            if info["type"] != "directory":
                self._fs.get_file(path, str(into))
                return
            into.mkdir()
            for file, _ in self._files(path):
                target = into / file
                target.parent.mkdir(parents=True, exist_ok=True)
                self._fs.get_file(f"{path}/{file}", str(target))

    def _path(self, name: str) -> str:
        return f"{self._folder.rstrip('/')}/{name}"

    def _mark(self, path: str) -> Mark | None:
        with self._told():
            try:
                info = self._fs.info(path)
            except FileNotFoundError:
                return None
            if info["type"] == "directory":
                return folder_mark(
                    Entry(name, size or 0, f"{_time_of(inner)} {_tag_of(inner)}")
                    for name, inner in self._files(path)
                    for size in [inner.get("size")]
                )
        return Mark(
            modified=_time_of(info), size=info.get("size"), tag=_tag_of(info), exact=self._exact
        )

    def _files(self, path: str) -> list[tuple[str, dict[str, Any]]]:
        """Every file below a folder: its path in there, and what is said of it."""
        found = self._fs.find(path, maxdepth=MAX_DEPTH, detail=True)
        if len(found) > MAX_ENTRIES:
            raise UsageError(f"the folder holds more than {MAX_ENTRIES} files")
        files = []
        for name, info in found.items():
            below = self._fs._strip_protocol(name).removeprefix(path.rstrip("/") + "/")  # noqa: SLF001 — the name that fsspec gives it
            if below.startswith("/") or ".." in below.split("/"):
                raise UsageError(f"the folder holds {name!r}, which leads out of it")
            files.append((below, info))
        return files

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """What goes wrong meanwhile is told in this package's errors."""
        try:
            yield
        except ModelcloudError:
            raise
        except ImportError as error:
            raise UnsupportedMedia(
                f"{self._shown} needs a package that is not installed: {error}"
            ) from error
        except FileNotFoundError as error:
            raise NotFound(f"there is no such file at {self._shown}") from error
        except Exception as error:
            raise self._translated(error) from error

    def _translated(self, error: Exception) -> Exception:
        """The libraries behind fsspec have no errors in common; their names tell them apart."""
        if is_local(error):
            return error
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, ModelcloudError):
            cause = cause.__cause__ or cause.__context__
        if isinstance(cause, ModelcloudError):  # of the guard, wrapped by the library
            return cause
        kinds = {kind.__name__ for kind in type(error).__mro__}
        text = str(error) or type(error).__name__
        refused = {
            "PermissionError",
            "PermissionDenied",
            "NoCredentialsError",
            "HostKeyNotVerifiable",
        }
        if kinds & refused or any(
            word in text for word in ("Permission denied", "InvalidAccessKeyId", "SignatureDoesNot")
        ):
            return Unauthorized(f"{self._shown} does not let us in: {text}")
        if kinds & {"TypeError", "ValueError", "KeyError"}:
            return UsageError(f"{self._shown} or a storage option is not accepted: {text}")
        return Overloaded(f"{self._shown} cannot be reached, or broke off: {text}")


def _time_of(info: dict[str, Any]) -> float | None:
    value = next((info[name] for name in _TIMES if info.get(name) is not None), None)
    if isinstance(value, datetime):
        return value.timestamp()
    if isinstance(value, int | float):
        return value / 1000 if value > 1e11 else float(value)  # ms, of webhdfs
    return None


def _tag_of(info: dict[str, Any]) -> str:
    return " ".join(f"{name}={info[name]}" for name in _TAGS if info.get(name))
