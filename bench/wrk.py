"""Drives one address with wrk and reads what it reports.

wrk is a closed loop, which hides stalls from the percentiles; where stalls are what is asked,
`updates.py` uses an open loop instead.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

_SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = %s
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\nRESULT {"requests":%%d,"us":%%d,"bad":%%d,"p50":%%f,"p99":%%f,"max":%%f}\\n',
    summary.requests, summary.duration, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99), latency.max))
end
"""


class Figures(NamedTuple):
    """What one run gave. Times in milliseconds."""

    requests: int
    per_second: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    bad: int


def drive(url: str, body: object | None, *, connections: int, seconds: float) -> Figures:
    """Load one address; without a body by GET."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "load.lua"
        text = _SCRIPT % _lua(json.dumps(body) if body is not None else "")
        if body is None:
            text = text.replace('wrk.method = "POST"', 'wrk.method = "GET"')
        script.write_text(text)
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "30s",
                   "--latency", "-s", str(script), url]  # fmt: skip
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    line = next(line for line in out.splitlines() if line.startswith("RESULT "))
    result = json.loads(line.removeprefix("RESULT "))
    return Figures(
        requests=result["requests"],
        per_second=result["requests"] / (result["us"] / 1e6),
        p50_ms=result["p50"] / 1000,
        p99_ms=result["p99"] / 1000,
        max_ms=result["max"] / 1000,
        bad=result["bad"],
    )


def _lua(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
