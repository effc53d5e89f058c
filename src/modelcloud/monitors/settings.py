"""Settings of `modelcloud monitor`, checked.

Must never: read the environment or a file; the command line fills this record.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from modelcloud.artifacts.tree import parts_of
from modelcloud.errors import UsageError
from modelcloud.monitors.source import (
    AFS,
    FTP,
    GENERAL,
    HDFS,
    THROUGH_FSSPEC,
    TYPES,
    Patience,
    SourceSpec,
    Watched,
    check_name,
    hide_password,
)

PACKED = (
    ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".zip",
)  # fmt: skip
TIMESTAMP_FILE = "fluid_time_file"
TMP_PATH = "_serving_monitor_tmp"
#: Option → the types it goes with, and whether they need it.
_OF_TYPES = {
    "general_host": ((GENERAL,), True),
    "hadoop_bin": ((HDFS, AFS), True),
    "fs_name": ((HDFS, AFS), False),
    "fs_ugi": ((HDFS, AFS), False),
    "ftp_host": ((FTP,), True),
    "ftp_username": ((FTP,), False),
    "ftp_password": ((FTP,), False),
}


class MonitorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """All of `modelcloud monitor`.

    Attributes:
        source: the remote folder.
        remote_model_name, remote_donefile_name: names in it.
        local_path, local_model_name: the folder that is replaced.
        local_timestamp_file: file in it that is touched each time.
        local_tmp_path: where models are pulled to; in a folder of their own there.
        interval: seconds between two looks.
        unpacked_filename: name of the model in its archive; empty: it is not packed.
        patience: limits of a pull.
        once: look once, then end.
    """

    source: SourceSpec
    remote_model_name: str
    remote_donefile_name: str
    local_path: str
    local_model_name: str
    local_timestamp_file: str = TIMESTAMP_FILE
    local_tmp_path: str = TMP_PATH
    interval: float = 10.0
    unpacked_filename: str = ""
    patience: Patience = Patience()
    once: bool = False

    @property
    def watched(self) -> Watched:
        """The two remote names."""
        return Watched(model=self.remote_model_name, done=self.remote_donefile_name)

    def check(self) -> None:
        """Raise unless the settings fit each other.

        Raises:
            UsageError: they do not; the message names the option.
        """
        check_source(self.source)
        check_watched(self.watched)
        if self.unpacked_filename:
            parts_of(self.unpacked_filename, depth=16)
        elif self.remote_model_name.lower().endswith(PACKED):
            raise UsageError(
                f"{self.remote_model_name} is packed; say with --unpacked_filename which folder in "
                "it is the model ('.' for all of it)"
            )

    def identity(self) -> str:
        """What a remembered state belongs to: this remote model, and this local one."""
        local = Path(self.local_path).absolute() / self.local_model_name
        names = (self.remote_model_name, self.remote_donefile_name, self.unpacked_filename)
        return "\n".join((self.source.identity(), *names, str(local)))

    def shown(self) -> list[tuple[str, str]]:
        """Every option as the log shows it, secrets hidden."""
        source = self.source
        own: list[tuple[str, str]] = []
        if source.type == GENERAL:
            own = [("general_host", hide_password(source.host))]
        elif source.type in {HDFS, AFS}:
            own = [
                ("hadoop_bin", source.hadoop_bin),
                ("fs_name", source.fs_name),
                ("fs_ugi", "***" if source.fs_ugi else ""),
            ]
        elif source.type == FTP:
            own = [
                ("ftp_host", source.host),
                ("ftp_port", str(source.port)),
                ("ftp_username", source.username),
                ("ftp_password", "***" if source.password else ""),
            ]
        return [
            *own,
            ("remote_path", hide_password(source.path)),
            ("remote_model_name", self.remote_model_name),
            ("remote_donefile_name", self.remote_donefile_name),
            ("local_model_name", self.local_model_name),
            ("local_path", self.local_path),
            ("local_timestamp_file", self.local_timestamp_file),
            ("local_tmp_path", self.local_tmp_path),
            ("interval", f"{self.interval:g}"),
        ]


def check_source(source: SourceSpec) -> None:
    """Raise unless its type is one, and has what it needs and nothing of another's.

    Raises:
        UsageError: it is not so; the message names the option.
    """
    if source.type not in TYPES:
        raise UsageError(f"--type {source.type!r}: accepted: {', '.join(TYPES)}", field="type")
    for option, value in _by_type(source).items():
        types, needed = _OF_TYPES[option]
        if source.type in types and needed and not value:
            raise UsageError(f"--type {source.type} needs --{option}", field=option)
        if source.type not in types and value:
            raise UsageError(
                f"--{option} goes with --type {' or '.join(types)}, not {source.type}", field=option
            )
    if source.options and source.type not in THROUGH_FSSPEC:
        raise UsageError(
            f"storage options go with --type {', '.join(THROUGH_FSSPEC)}, not {source.type}"
        )


def check_watched(watched: Watched) -> None:
    """Raise unless both are names, and of two things.

    Raises:
        UsageError: it is not so.
    """
    check_name(watched.model, "--remote_model_name")
    check_name(watched.done, "--remote_donefile_name")
    if watched.model == watched.done:
        raise UsageError(
            "--remote_model_name and --remote_donefile_name are the same",
            field="remote_donefile_name",
        )


def _by_type(source: SourceSpec) -> dict[str, str]:
    is_ftp = source.type == FTP
    return {
        "general_host": "" if is_ftp else source.host,
        "hadoop_bin": source.hadoop_bin,
        "fs_name": source.fs_name,
        "fs_ugi": source.fs_ugi,
        "ftp_host": source.host if is_ftp else "",
        "ftp_username": source.username,
        "ftp_password": source.password,
    }
