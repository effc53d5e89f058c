"""How fast the same work answers on one Ray cluster: at our gateway, and at Serve's own address.

`python -m bench.on_ray` begins a cluster of this machine, and on it both a plain Serve deployment
and `modelcloud up --engine ray`, each with two replicas, which are asked in turn in the same run.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import httpx

from bench.apps.work import BODIES
from bench.peers import APPS, WORKERS
from bench.processes import running
from bench.wrk import Figures, drive
from modelcloud.platform import Platform

WORK = "pisqrt"
PASSWORD = "only for this measurement"
START_S = 180.0
#: Of the cluster, which nobody else uses: head, dashboard, client, and Serve's own.
PORT = 27100
SERVE_PORT = PORT + 9
ROUNDS = 3


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.on_ray", description=__doc__)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mc-ray-")))
        addresses = _start(stack, folder)
        found: dict[str, list[Figures]] = {name: [] for name in addresses}
        for address in addresses.values():  # in their stride before anything is measured
            drive(address, BODIES[WORK], connections=options.connections, seconds=2)
        for _ in range(ROUNDS):
            for name, address in addresses.items():
                found[name].append(
                    drive(
                        address,
                        BODIES[WORK],
                        connections=options.connections,
                        seconds=options.seconds,
                    )
                )
    best = {
        name: sorted(runs, key=lambda f: f.per_second)[ROUNDS // 2] for name, runs in found.items()
    }
    print("| address | requests/s | p50 ms | p99 ms | failed |\n|---|---|---|---|---|")
    for name, f in best.items():
        print(f"| {name} | {f.per_second:,.0f} | {f.p50_ms:.2f} | {f.p99_ms:.2f} | {f.bad} |")
    ours, theirs = best["our gateway"], best["Ray Serve, a deployment of its own"]
    print(f"\n{ours.per_second / theirs.per_second:.1f} times the requests, "
          f"{theirs.p50_ms / ours.p50_ms:.1f} times shorter p50")  # fmt: skip
    return 0


def _start(stack: ExitStack, folder: Path) -> dict[str, str]:
    """Begin everything; name → address."""
    env = {
        "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "NO_COLOR": "1",
        "RAY_ADDRESS": f"127.0.0.1:{PORT}", "WORK": WORK, "WORKERS": str(WORKERS),
        "PORT": str(SERVE_PORT), "XDG_DATA_HOME": str(folder / "kept"),
    }  # fmt: skip

    def begin(name: str, *command: str | Path, shows: str) -> str:
        log = folder / f"{name}.log"
        argv = [*map(str, command)]
        stack.enter_context(running(argv, cwd=folder, env=env, log=log))
        return _until(lambda: re.findall(shows, log.read_text()), log)[0]

    begin(
        "head", Path(sys.executable).with_name("ray"), "start", "--head", "--block",
        f"--port={PORT}", f"--dashboard-port={PORT + 1}", f"--ray-client-server-port={PORT + 2}",
        f"--temp-dir={folder / 'r'}", f"--num-cpus={max(4, os.cpu_count() or 0)}",
        "--object-store-memory=100000000", f"--min-worker-port={PORT + 20}",
        f"--max-worker-port={PORT + 150}", "--disable-usage-stats",
        shows="Ray runtime started",
    )  # fmt: skip
    begin("beside", sys.executable, APPS / "ray_beside.py", shows="READY")
    password = folder / "password"
    password.write_text(PASSWORD)
    api = begin(
        "up", sys.executable, "-m", "modelcloud.cli.main", "up", "--data", folder / "data",
        "--port", "0", "--control-port", "0", "--root", folder, "--admin-password-file", password,
        "--engine", "ray", "--ray-address", f"127.0.0.1:{PORT}", "--no-confine",
        shows=r"Control plane at (\S+)",
    )  # fmt: skip
    url = re.findall(r"Predictions at (\S+)", (folder / "up.log").read_text())[0]
    with Platform(api) as platform:
        platform.sign_in("admin", PASSWORD)
        model = folder / "model"
        model.mkdir()
        for name in ("modelcloud_app.py", "work.py"):
            (model / name).write_text((APPS / name).read_text())
        (model / "modelcloud_app.py").rename(model / "model.py")
        platform.register("bench", path=str(model), group="admin", options={"work": WORK})
        begun = platform.deploy("bench", 1, instance_type="unlimited", replicas=WORKERS)
        platform.wait(begun["rollout"]["id"], timeout_s=START_S)
    details = httpx.get(f"http://127.0.0.1:{PORT + 1}/api/serve/applications/", timeout=30).json()
    (route,) = (a["route_prefix"] for n, a in details["applications"].items() if n != "beside")
    serve = f"http://127.0.0.1:{SERVE_PORT}"
    return {
        "our gateway": f"{url}/bench/{WORK}",
        "Ray Serve, our application": f"{serve}{route}/{WORK}",
        "Ray Serve, a deployment of its own": f"{serve}/beside",
    }


def _until(found: Callable[[], list[str]], log: Path) -> list[str]:
    end = time.monotonic() + START_S
    while not (there := found()):
        if time.monotonic() > end:
            raise SystemExit(f"it did not come up:\n{log.read_text()[-4000:]}")
        time.sleep(0.1)
    return there


if __name__ == "__main__":
    sys.exit(main())
