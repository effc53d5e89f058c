"""The servers under measurement: how each is installed, started, addressed and updated.

Must never: favour one. Each gets two workers, its documented way of starting, and no access log.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BENCH = Path(__file__).parent
APPS = BENCH / "apps"
ENVIRONMENTS = BENCH / "environments"
WORKERS = 2


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where one run of a peer happens.

    Attributes:
        work: key of `apps.work.BODIES`.
        folder: an empty folder for the run's own files.
        bin: of the peer's environment.
    """

    work: str
    port: int
    folder: Path
    bin: Path


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One server.

    Attributes:
        requires: what pip installs into its environment; empty for the environment of this project.
        command: the command line that starts it.
        env: variables beside WORK, WORKERS, PORT, LOAD_S.
        path: address of a piece of work.
        body: the request body, where it is not the plain one.
        update: how a new version is brought in while it serves, given its process id and address;
            None where there is no way but a restart.
    """

    name: str
    label: str
    requires: tuple[str, ...] = ()
    command: Callable[[Site], Sequence[str]]
    env: Callable[[Site], Mapping[str, str]] = lambda _: {}
    path: Callable[[str], str] = lambda work: f"/{work}"
    body: Callable[[str, Any], Any] = lambda _, body: body
    update: Callable[[int, str], None] | None = None
    needs: tuple[str, ...] = field(default=())

    def prepare(self) -> Path:
        """Make the peer's environment, once; return its bin folder."""
        for program in self.needs:
            if shutil.which(program) is None:
                raise SystemExit(
                    f"{self.name} needs {program}; run scripts/install-system-packages"
                )
        if not self.requires:
            return Path(sys.executable).parent
        place = ENVIRONMENTS / self.name
        stamp = place / ".installed"
        wanted = "\n".join(self.requires)
        if not stamp.exists() or stamp.read_text() != wanted:
            print(f"making the environment of {self.name} …", file=sys.stderr)
            venv.create(place, with_pip=True, clear=True)
            subprocess.run([place / "bin/pip", "install", "--quiet", *self.requires], check=True)
            stamp.write_text(wanted)
        return place / "bin"


# ---- modelcloud


def _modelcloud(site: Site) -> Sequence[str]:
    return [str(site.bin / "modelcloud"), "serve", str(APPS / "modelcloud_app.py"),
            "--port", str(site.port), "--replicas", str(WORKERS),
            "--option", f"work={site.work}"]  # fmt: skip


def _post_setup(_: int, url: str) -> None:
    import httpx

    httpx.post(f"{url}/setup", json={"load_s": 3}, timeout=60).raise_for_status()


# ---- FastAPI and Flask


def _fastapi(site: Site) -> Sequence[str]:
    return [str(site.bin / "uvicorn"), "fastapi_app:app", "--port", str(site.port),
            "--workers", str(WORKERS), "--no-access-log", "--log-level", "warning"]  # fmt: skip


def _hang_up(pid: int, _: str) -> None:
    os.kill(pid, 1)


_NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 2048; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi; keepalive_requests 1000000000;
  server {{
    listen 127.0.0.1:{port};
    location / {{ {location} }}
  }}
}}
"""

_UWSGI_PARAMS = """
uwsgi_pass unix:{folder}/app.sock;
uwsgi_param QUERY_STRING $query_string; uwsgi_param REQUEST_METHOD $request_method;
uwsgi_param CONTENT_TYPE $content_type; uwsgi_param CONTENT_LENGTH $content_length;
uwsgi_param REQUEST_URI $request_uri; uwsgi_param PATH_INFO $document_uri;
uwsgi_param SERVER_PROTOCOL $server_protocol; uwsgi_param REMOTE_ADDR $remote_addr;
uwsgi_param SERVER_PORT $server_port; uwsgi_param SERVER_NAME $server_name;
"""


def _nginx_conf(site: Site, location: str) -> Path:
    conf = site.folder / "nginx.conf"
    conf.write_text(_NGINX.format(folder=site.folder, port=site.port, location=location))
    return conf


def _flask(site: Site) -> Sequence[str]:
    site.folder.chmod(0o755)  # nginx may run its workers as another user
    conf = _nginx_conf(site, _UWSGI_PARAMS.format(folder=site.folder))
    uwsgi = [str(site.bin / "uwsgi"), "--module", "flask_app:app", "--master", "--lazy-apps",
             "--processes", str(WORKERS), "--socket", f"{site.folder}/app.sock", "--vacuum",
             "--disable-logging", "--chmod-socket=666", "--listen", "100", "--die-on-term",
             "--pidfile", f"{site.folder}/uwsgi.pid"]  # fmt: skip
    script = site.folder / "start"
    script.write_text(f"nginx -c {conf} -p {site.folder} &\nexec {' '.join(uwsgi)}\n")
    return ["sh", str(script)]


def _nginx_static(site: Site) -> Sequence[str]:
    answer = json.dumps({"result": 8.86226925452758})
    location = f"default_type application/json; return 200 '{answer}';"
    return ["nginx", "-c", str(_nginx_conf(site, location)), "-p", str(site.folder)]


# ---- others


def _python(app: str) -> Callable[[Site], Sequence[str]]:
    return lambda site: [str(site.bin / "python"), str(APPS / app)]


def _mosec(site: Site) -> Sequence[str]:
    return [str(site.bin / "python"), str(APPS / "mosec_app.py"), "--port", str(site.port),
            "--address", "127.0.0.1", "--path", str(site.folder / "ipc")]  # fmt: skip


def _bentoml(site: Site) -> Sequence[str]:
    return [str(site.bin / "bentoml"), "serve", "bentoml_app:Model", "--port", str(site.port),
            "--host", "127.0.0.1"]  # fmt: skip


def _mlserver(site: Site) -> Sequence[str]:
    (site.folder / "settings.json").write_text(
        json.dumps({"http_port": site.port, "grpc_port": site.port + 1, "host": "127.0.0.1",
                    "metrics_port": site.port + 2, "parallel_workers": WORKERS, "debug": False})
    )  # fmt: skip
    model = {"name": "work", "implementation": "mlserver_app.Model"}
    if site.work == "batch":
        model |= {"max_batch_size": 32, "max_batch_time": 0.01}  # type: ignore[dict-item]
    (site.folder / "model-settings.json").write_text(json.dumps(model))
    return [str(site.bin / "mlserver"), "start", str(site.folder)]


def _open_inference(work: str, body: dict[str, Any]) -> Any:
    values = body["x"] if work == "linear" else [body["a"]]
    tensor = {"name": "x", "shape": [1, len(values)], "datatype": "FP64", "data": values}
    return {"inputs": [tensor]}


def _granian(site: Site) -> Sequence[str]:
    return [str(site.bin / "granian"), "--interface", "rsgi", "--port", str(site.port),
            "--workers", str(WORKERS), "--no-ws", "granian_app:app"]  # fmt: skip


PEERS = {
    peer.name: peer
    for peer in (
        Peer(name="modelcloud", label="modelcloud", command=_modelcloud, update=_post_setup),
        Peer(
            name="fastapi",
            label="FastAPI + uvicorn",
            requires=("fastapi==0.163.*", "uvicorn[standard]==0.54.*", "numpy"),
            command=_fastapi,
            update=_hang_up,
        ),
        Peer(
            name="flask",
            label="Flask + uWSGI + nginx",
            requires=("flask==3.1.*", "uwsgi==2.0.*", "numpy"),
            command=_flask,
            update=_hang_up,
            needs=("nginx",),
        ),
        Peer(
            name="nginx",
            label="nginx, a static 200",
            command=_nginx_static,
            needs=("nginx",),
        ),
        Peer(
            name="mosec",
            label="mosec 0.9",
            requires=("mosec==0.9.*", "numpy"),
            command=_mosec,
            path=lambda _: "/inference",
        ),
        Peer(
            name="litserve",
            label="LitServe 0.2",
            requires=("litserve==0.2.*", "numpy"),
            command=_python("litserve_app.py"),
            path=lambda _: "/predict",
        ),
        Peer(
            name="bentoml",
            label="BentoML 1.4",
            requires=("bentoml==1.4.*", "numpy"),
            command=_bentoml,
            body=lambda work, body: {"a": [body["a"]]} if work == "batch" else body,
        ),
        Peer(
            name="ray",
            label="Ray Serve 2.60",
            requires=("ray[serve]==2.60.*", "numpy"),
            command=_python("ray_app.py"),
        ),
        Peer(
            name="mlserver",
            label="MLServer 1.7",
            requires=("mlserver==1.7.*", "uvloop<0.22", "numpy"),
            command=_mlserver,
            path=lambda _: "/v2/models/work/infer",
            body=_open_inference,
        ),
        Peer(
            name="granian",
            label="granian, a bare handler",
            requires=("granian==2.*", "numpy"),
            command=_granian,
        ),
    )
}
DEFAULT = ("nginx", "modelcloud", "fastapi", "flask")
