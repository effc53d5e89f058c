"""Files and folders of an FTP server.

Must never: connect to another machine than the one named, whatever its answer to PASV says.
"""

from __future__ import annotations

import calendar
import contextlib
import ftplib
import time
from collections.abc import Iterator
from pathlib import Path

from modelcloud.errors import ModelcloudError, NotFound, Overloaded, Unauthorized, UsageError
from modelcloud.monitors.mark import Entry, Mark, folder_mark
from modelcloud.monitors.source import (
    FTP_PORT,
    MAX_DEPTH,
    MAX_ENTRIES,
    TIMEOUT_S,
    SourceSpec,
    is_local,
    join,
)

_CHUNK = 256 * 1024
#: Replies to MLST that mean that the server does not know it.
_UNKNOWN = ("500", "501", "502", "504")


class Ftp:
    """See `Source`. Each call signs in anew, so that a server that was away is no trouble."""

    def __init__(
        self, spec: SourceSpec, *, host: str = "", port: int = FTP_PORT, folder: str = ""
    ) -> None:
        self._host, self._port = host or spec.host, port if host else spec.port
        self._folder = folder if host else spec.path
        self._username, self._password = spec.username, spec.password

    def marks(self, *names: str) -> list[Mark | None]:
        """See `Source.marks`."""
        with self._session() as session:
            return [session.mark(self._path(name)) for name in names]

    def read(self, name: str, limit: int) -> bytes | None:
        """See `Source.read`."""
        content = b""

        def take(chunk: bytes) -> None:
            nonlocal content
            content += chunk
            if len(content) > limit:
                raise UsageError(f"{name} holds more than {limit} bytes")

        with self._session() as session:
            try:
                session.ftp.retrbinary(f"RETR {self._path(name)}", take, _CHUNK)
            except ftplib.error_perm as error:
                if _code(error) == "550":
                    return None
                raise
        return content

    def fetch(self, name: str, into: Path) -> None:
        """See `Source.fetch`."""
        with self._session() as session:
            mark = session.mark(self._path(name))
            if mark is None:
                raise NotFound(f"there is no {name} in {self._folder or '/'} on {self._host}")
            if not mark.folder:
                session.get(self._path(name), into)
                return
            into.mkdir()
            for path, _ in session.files(self._path(name)):
                target = into / path
                target.parent.mkdir(parents=True, exist_ok=True)
                session.get(join(self._path(name), path), target)

    def _path(self, name: str) -> str:
        return join(self._folder, name)

    @contextlib.contextmanager
    def _session(self) -> Iterator[_Session]:
        """Signed in; what goes wrong meanwhile is told in this package's errors."""
        ftp = _Ftp(timeout=TIMEOUT_S, encoding="utf-8")
        where = f"the FTP server {self._host}:{self._port}"
        try:
            try:
                ftp.connect(self._host, self._port)
            except (OSError, EOFError, ftplib.Error) as error:
                raise Overloaded(
                    f"{where} cannot be reached: {error}; are host and port right?"
                ) from error
            try:
                ftp.login(self._username or "anonymous", self._password)
            except ftplib.error_perm as error:
                raise Unauthorized(
                    f"{where} does not accept user name and password: {error}"
                ) from error
            yield _Session(ftp)
        except (OSError, EOFError, ftplib.Error) as error:
            if is_local(error):
                raise
            raise _told(error, where) from error
        finally:
            ftp.close()


class _Ftp(ftplib.FTP):
    """Takes the port from an answer to PASV, not the address (CVE-2021-4189)."""

    trust_server_pasv_ipv4_address = False


class _Session:
    """What is asked of a server that one is signed in to."""

    def __init__(self, ftp: ftplib.FTP) -> None:
        self.ftp = ftp
        with contextlib.suppress(ftplib.error_perm):
            ftp.sendcmd("OPTS MLST type;size;modify;unique;")

    def mark(self, path: str) -> Mark | None:
        """What there is at a path; the listing of the server where it knows MLST, else asked."""
        try:
            facts = _facts(self.ftp.sendcmd(f"MLST {path}"))
        except ftplib.error_perm as error:
            if _code(error) not in _UNKNOWN:
                return None
            return self._asked(path)
        if facts.get("type", "file").lower() in {"dir", "cdir", "pdir"}:
            return self._folder(path)
        size = facts.get("size", "")
        return Mark(
            modified=_seconds(facts.get("modify", "")),
            size=int(size) if size.isdigit() else None,
            tag=facts.get("unique", ""),
        )

    def _asked(self, path: str) -> Mark | None:
        self.ftp.voidcmd("TYPE I")
        try:
            size = self.ftp.size(path)
            modified = self.ftp.sendcmd(f"MDTM {path}").partition(" ")[2]
        except ftplib.error_perm:
            return self._folder(path) if self._is_folder(path) else None
        return Mark(modified=_seconds(modified), size=size)

    def _is_folder(self, path: str) -> bool:
        here = self.ftp.pwd()
        try:
            self.ftp.cwd(path)
        except ftplib.error_perm:
            return False
        self.ftp.cwd(here)
        return True

    def _folder(self, path: str) -> Mark:
        return folder_mark(
            Entry(name, mark.size or 0, f"{mark.modified} {mark.tag}")
            for name, mark in self.files(path)
        )

    def files(self, path: str) -> list[tuple[str, Mark]]:
        """Every file below a folder: its path in there, and its mark."""
        found: list[tuple[str, Mark]] = []
        pending = [("", 1)]
        seen = 0
        while pending:
            folder, depth = pending.pop()
            for name, mark in self._listed(join(path, folder)):
                seen += 1
                if seen > MAX_ENTRIES or depth > MAX_DEPTH:
                    raise UsageError(
                        f"{path} holds more than {MAX_ENTRIES} files, or folders nested deeper "
                        f"than {MAX_DEPTH}"
                    )
                if mark is None:
                    pending.append((join(folder, name), depth + 1))
                else:
                    found.append((join(folder, name), mark))
        return found

    def _listed(self, path: str) -> list[tuple[str, Mark | None]]:
        """Name → its mark, None of a folder, for all that is in a folder."""
        try:
            rows = list(self.ftp.mlsd(path))
        except ftplib.error_perm as error:
            if _code(error) not in _UNKNOWN:
                raise
            names = [name.rstrip("/").rpartition("/")[2] for name in self.ftp.nlst(path)]
            return [
                (name, None if self._is_folder(join(path, name)) else self._asked(join(path, name)))
                for name in names
                if _is_plain(name)
            ]
        found: list[tuple[str, Mark | None]] = []
        for name, facts in rows:
            kind = facts.get("type", "file").lower()
            if kind in {"cdir", "pdir"}:
                continue
            if not _is_plain(name):
                raise UsageError(f"{path} holds {name!r}, which is no name of a file")
            mark = Mark(
                modified=_seconds(facts.get("modify", "")),
                size=int(facts["size"]) if facts.get("size", "").isdigit() else None,
                tag=facts.get("unique", ""),
            )
            found.append((name, None if kind == "dir" else mark))
        return found

    def get(self, path: str, into: Path) -> None:
        """Write a file to `into`."""
        with into.open("xb") as file:
            self.ftp.retrbinary(f"RETR {path}", file.write, _CHUNK)


def _is_plain(name: str) -> bool:
    return name not in {"", ".", ".."} and "/" not in name


def _facts(reply: str) -> dict[str, str]:
    """The facts in a reply to MLST (RFC 3659, 7): ` type=file;size=5; /path` on its second line."""
    lines = reply.splitlines()
    facts = lines[1].lstrip().partition(" ")[0] if len(lines) > 1 else ""
    pairs = (fact.partition("=") for fact in facts.split(";") if "=" in fact)
    return {name.lower(): value for name, _, value in pairs}


def _seconds(text: str) -> float | None:
    """`YYYYMMDDHHMMSS.sss`, in UTC (RFC 3659, 2.3), as seconds since 1970."""
    whole, _, fraction = text.strip().partition(".")
    try:
        seconds = float(calendar.timegm(time.strptime(whole, "%Y%m%d%H%M%S")))
    except ValueError:
        return None
    return seconds + float(f"0.{fraction}") if fraction.isdigit() else seconds


def _code(error: ftplib.Error) -> str:
    return str(error)[:3]


def _told(error: Exception, where: str) -> ModelcloudError:
    if isinstance(error, ftplib.error_perm):
        if _code(error) in {"530", "532"}:
            return Unauthorized(f"{where} does not accept user name and password: {error}")
        if _code(error) == "550":
            return NotFound(f"{where}: {error}")
    if isinstance(error, TimeoutError):
        return Overloaded(f"{where} did not answer within {TIMEOUT_S:g} s")
    return Overloaded(f"{where} broke off: {error or type(error).__name__}")
