"""A real HDFS for tests: one NameNode, one DataNode, and a `hadoop` to talk to them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.programs import program
from support.server import wait_for

ROOT = Path(__file__).parent.parent.parent
JARS = ROOT / ".cache" / "hadoop" / "lib"
_DEADLINE_S = 90.0

#: Of Debian's, in /usr/share/java; the others are the wheel's.
_DEBIAN = (
    "jaxb-api", "jaxb-runtime", "javax.activation", "httpclient", "httpcore", "jetty9-server",
    "jetty9-util", "jetty9-util-ajax", "jetty9-http", "jetty9-io", "jetty9-servlet",
    "jetty9-webapp", "jetty9-xml", "jetty9-security", "servlet-api", "jersey1-core",
    "jersey1-server", "jersey1-servlet", "jsr311-api", "jackson-databind", "jackson-annotations",
    "jackson-core", "commons-net", "commons-codec", "commons-daemon",
)  # fmt: skip
_OPENED = ("java.lang", "java.nio", "java.net", "sun.nio.ch")

_LOG4J = """log4j.rootLogger=WARN, err
log4j.appender.err=org.apache.log4j.ConsoleAppender
log4j.appender.err.target=System.err
log4j.appender.err.layout=org.apache.log4j.PatternLayout
log4j.appender.err.layout.ConversionPattern=%d %p %c: %m%n
"""
#: As Hadoop's own launcher: `hadoop fs …`. It warns on standard error each time, as that does.
_HADOOP = """#!/bin/sh
[ "$1" = fs ] || { echo "only fs is known here" >&2; exit 2; }
shift
exec %s org.apache.hadoop.fs.FsShell "$@"
"""


class Hdfs:
    """A running file system.

    Attributes:
        hadoop: path of a program that understands `fs -ls`, `-get`, `-put`, `-rm` and the like.
        name: its address, `hdfs://127.0.0.1:PORT`.
        web_port: where it speaks WebHDFS.
        name_node, data_node: the processes.
    """

    def __init__(self, folder: Path) -> None:
        rpc, self.web_port, data, data_web, data_ipc = _free_ports(5)
        self._folder = folder
        self.name = f"hdfs://127.0.0.1:{rpc}"
        self._java = [
            program("java"),
            *(f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENED),
            "-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp", _class_path(folder),
        ]  # fmt: skip
        for name in ("hdfs", "datanode", "secondary"):
            place = folder / "conf" / "webapps" / name / "WEB-INF"
            place.mkdir(parents=True)
            (place / "web.xml").write_text("<web-app/>")
        (folder / "conf" / "webapps" / "static").mkdir()
        (folder / "conf" / "log4j.properties").write_text(_LOG4J)
        _settings(folder / "conf" / "core-site.xml", {"fs.defaultFS": self.name})
        address = "127.0.0.1:{}".format
        _settings(
            folder / "conf" / "hdfs-site.xml",
            {
                "dfs.replication": "1",
                "dfs.namenode.name.dir": f"file://{folder}/name",
                "dfs.datanode.data.dir": f"file://{folder}/data",
                "dfs.namenode.http-address": address(self.web_port),
                "dfs.datanode.address": address(data),
                "dfs.datanode.http.address": address(data_web),
                "dfs.datanode.ipc.address": address(data_ipc),
                "dfs.datanode.hostname": "127.0.0.1",
                "dfs.permissions.enabled": "false",
                "dfs.namenode.datanode.registration.ip-hostname-check": "false",
            },
        )
        hadoop = folder / "hadoop"
        hadoop.write_text(_HADOOP % " ".join(self._java))
        hadoop.chmod(0o755)
        self.hadoop = str(hadoop)
        server = "org.apache.hadoop.hdfs.server"
        made = subprocess.run(
            [*self._java, f"{server}.namenode.NameNode", "-format", "-force", "-nonInteractive"],
            check=False, capture_output=True, text=True, timeout=_DEADLINE_S,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        self.name_node = self._start(f"{server}.namenode.NameNode")
        self.data_node = self._start(f"{server}.datanode.DataNode")

    def _start(self, main: str) -> subprocess.Popen[bytes]:
        with (self._folder / f"{main.rpartition('.')[2]}.log").open("ab") as log:
            return subprocess.Popen(
                [*self._java, main], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def fs(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run `hadoop fs` with these arguments."""
        return subprocess.run(
            [self.hadoop, "fs", *map(str, arguments)],
            check=False, capture_output=True, text=True, timeout=_DEADLINE_S,
        )  # fmt: skip

    def ready(self) -> bool:
        """Whether it takes files."""
        for process in (self.name_node, self.data_node):
            assert process.poll() is None, self.log()
        probe = self._folder / "probe"
        probe.write_text("x")
        return self.fs("-put", "-f", probe, "/probe").returncode == 0

    def log(self) -> str:
        """What the servers have logged."""
        return "\n".join(log.read_text() for log in sorted(self._folder.glob("*.log")))

    def stop(self) -> None:
        """End both."""
        for process in (self.data_node, self.name_node):
            process.kill()
            process.send_signal(signal.SIGCONT)
            process.wait(_DEADLINE_S)


class HdfsFolder:
    """A folder of that file system, written as the seed's producer does: removed, then put.

    Args:
        hdfs: the file system.
        path: of the folder; made if it is not there.
        upload: a folder of this machine for what is put.

    Attributes:
        source: arguments of a monitor that watches it.
    """

    def __init__(self, hdfs: Hdfs, path: str, upload: Path) -> None:
        self.path = path
        self.source = ["--type", "hdfs", "--hadoop_bin", hdfs.hadoop, "--remote_path", path]
        self._hdfs, self._upload = hdfs, upload
        assert hdfs.fs("-mkdir", "-p", path).returncode == 0

    def put(self, name: str, data: bytes) -> None:
        """Write a file in the place of what is there."""
        local = self._upload / name
        local.parent.mkdir(parents=True, exist_ok=True)
        local.write_bytes(data)
        remote = f"{self.path.rstrip('/')}/{name}"
        self._hdfs.fs("-rm", remote)
        done = self._hdfs.fs("-put", local, remote)
        assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def hdfs_server(folder: Path) -> Iterator[Hdfs]:
    """Start one in an empty folder. Without its jars the test is skipped; in CI it fails."""
    if not (JARS / ".complete").exists():
        reason = "Hadoop is not there; run scripts/get-hadoop"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    hdfs = Hdfs(folder)
    try:
        wait_for("HDFS takes files", hdfs.ready, _DEADLINE_S)
        yield hdfs
    finally:
        hdfs.stop()


def _class_path(folder: Path) -> str:
    debian = [f"/usr/share/java/{name}.jar" for name in _DEBIAN]
    return ":".join([str(folder / "conf"), *debian, f"{JARS}/*"])


def _settings(file: Path, values: dict[str, str]) -> None:
    rows = "".join(
        f"<property><name>{name}</name><value>{value}</value></property>"
        for name, value in values.items()
    )
    file.write_text(f"<configuration>{rows}</configuration>")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
