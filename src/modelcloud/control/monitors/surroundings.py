"""What the process that reads a monitor's source finds around it: a folder of its own, no more.

Must never: let credentials of this machine, which libraries look for by themselves, serve a source
that somebody else has named.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from modelcloud.artifacts.store import remove_tree
from modelcloud.config import PlatformConfig
from modelcloud.dataplane.confinement import Confinement
from modelcloud.monitors.source import AFS, HDFS
from modelcloud.monitors.source_process import Surroundings

#: Of the environment, what says how programs run here and holds no credential.
_KEPT = {
    "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONPATH",
    "REQUESTS_CA_BUNDLE", "SSL_CERT_DIR", "SSL_CERT_FILE", "TZ",
}  # fmt: skip
_OF_HADOOP = ("HADOOP_", "JAVA_")


def make_folder(folder: Path) -> Path:
    """A new, empty folder in the place of what is there."""
    remove_tree(folder)
    folder.mkdir(mode=0o700, parents=True)
    return folder


def around(
    folder: Path, kind: str, config: PlatformConfig, environment: Mapping[str, str] = os.environ
) -> Surroundings:
    """Those of a source of this type, whose folder this is."""
    kept = {
        name: value
        for name, value in environment.items()
        if name in _KEPT or (kind in {HDFS, AFS} and name.startswith(_OF_HADOOP))
    }
    own = {
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    hidden = (config.data, *config.hidden) if config.confine else ()
    confinement = Confinement(hidden=hidden, writable=(str(folder),)) if hidden else Confinement()
    return Surroundings(environment=kept | own, confinement=confinement)
