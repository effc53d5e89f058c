"""Makes the source that a `SourceSpec` describes.

Must never: be imported outside of the process that reads from sources.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from modelcloud.errors import UsageError
from modelcloud.monitors.source import (
    AFS,
    FTP,
    FTP_PORT,
    GENERAL,
    HDFS,
    LOCAL,
    S3,
    SFTP,
    TYPES,
    WEBHDFS,
    Source,
    SourceSpec,
    check_path,
    join,
)

_FTP_URL = re.compile(r"ftp://([^/@:?#]+)(?::(\d{1,5}))?(/[^?#]*)?", re.IGNORECASE)


def open_source(spec: SourceSpec, say: Callable[[str], None]) -> Source:
    """The source; nothing is connected yet, but for types that go through fsspec.

    Args:
        spec: what describes it.
        say: is told, for the log, what is asked and answered.

    Raises:
        UsageError: the description does not fit its type.
        Forbidden: the rule for addresses does not allow the type.
        ModelcloudError: the place cannot be reached.
    """
    check_path(spec.path, "--remote_path")
    if spec.type == GENERAL:
        return _by_url(join(_with_scheme(spec.host).rstrip("/"), spec.path.lstrip("/")), spec)
    if spec.type in {HDFS, AFS}:
        from modelcloud.monitors.sources.hadoop import Hadoop

        return Hadoop(spec, say)
    if spec.type == FTP:
        from modelcloud.monitors.sources.ftp import Ftp

        return Ftp(spec)
    if spec.type == LOCAL:
        from modelcloud.monitors.sources.local import Local

        return Local(spec)
    if spec.type == S3 and "://" not in spec.path:
        return _fsspec(f"s3://{spec.path.lstrip('/')}", spec)
    if spec.type not in TYPES:
        raise UsageError(f"--type {spec.type!r}: accepted: {', '.join(TYPES)}")
    if "://" not in spec.path:
        raise UsageError(
            f"--remote_path {spec.path!r} with --type {spec.type}: accepted: a URL, as "
            f"{spec.type if spec.type in {SFTP, WEBHDFS} else 's3'}://HOST/FOLDER"
        )
    return _by_url(spec.path, spec)


def _by_url(url: str, spec: SourceSpec) -> Source:
    scheme = url.partition("://")[0].lower()
    if scheme in {"http", "https"}:
        from modelcloud.monitors.sources.general import General

        return General(url, spec)
    if scheme == "ftp":
        from modelcloud.monitors.sources.ftp import Ftp

        found = _FTP_URL.fullmatch(url)
        if found is None:
            raise UsageError("an ftp URL is ftp://HOST[:PORT]/FOLDER; with a password: --type ftp")
        return Ftp(spec, host=found[1], port=int(found[2] or FTP_PORT), folder=found[3] or "/")
    return _fsspec(url, spec)


def _fsspec(url: str, spec: SourceSpec) -> Source:
    from modelcloud.monitors.sources.fsspec_source import Fsspec

    return Fsspec(url, spec)


def _with_scheme(host: str) -> str:
    """As `wget` takes a host: without a scheme it is http."""
    if "@" in host.partition("://")[2].partition("/")[0]:
        raise UsageError(
            "--general_host with a user name: type general is for places without a password; "
            "accepted for FTP: --type ftp"
        )
    return host if "://" in host else f"http://{host}"
