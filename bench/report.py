"""The measured figures as a table for people, a file for machines and a picture."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.peers import PEERS
from bench.run import Row, Start
from bench.updates import UpdateFigures

WORKS = {
    "pisqrt": "`pisqrt`: one square root",
    "linear": "`linear`: 13 features, numpy",
    "batch": "`batch`: 5 ms + 0.1 ms a row",
}


def machine() -> str:
    """The machine, in words."""
    info = Path("/proc/cpuinfo").read_text()
    models = [line.split(":", 1)[1].strip() for line in info.splitlines() if "model name" in line]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    kernel = ".".join(platform.release().split(".")[:2])
    return (
        f"{len(os.sched_getaffinity(0))} cores of {models[0] if models else platform.machine()}, "
        f"{memory:.0f} GiB, Linux {kernel}, Python {platform.python_version()}; "
        "the load generator runs on the same cores"
    )


def table(
    starts: dict[tuple[str, str], Start],
    rows: Sequence[Row],
    updates: dict[str, UpdateFigures],
) -> str:
    """Markdown."""
    out = [f"Machine: {machine()}.", ""]
    for work, title in WORKS.items():
        chosen = [row for row in rows if row.work == work]
        if not chosen:
            continue
        out += [f"### {title}", "",
                "| server | connections | requests/s | p50 ms | p99 ms | CPU µs/request | failed |",
                "|---|---:|---:|---:|---:|---:|---:|"]  # fmt: skip
        out += [
            f"| {PEERS[row.peer].label} | {row.connections} | {row.per_second:,.0f} "
            f"| {row.p50_ms:.2f} | {row.p99_ms:.2f} | {row.cpu_us:,.1f} | {row.bad} |"
            for row in chosen
        ]
        out.append("")
    out += ["### Start and memory", "",
            "| server | work | first answer s | memory MB (PSS, whole tree) |",
            "|---|---|---:|---:|"]  # fmt: skip
    out += [
        f"| {PEERS[peer].label} | {work} | {start.first_answer_s:.2f} | {start.pss_mb:.0f} |"
        for (peer, work), start in starts.items()
    ]
    if updates:
        out += ["", "### An update with a 3 s load, 200 requests/s in an open loop", "",
                "| server | requests | failed | p50 ms | p99 ms | max ms | max before, ms |",
                "|---|---:|---:|---:|---:|---:|---:|"]  # fmt: skip
        out += [
            f"| {PEERS[peer].label} | {u.requests} | {u.failed} | {u.p50_ms:.1f} | {u.p99_ms:.1f} "
            f"| {u.max_ms:.0f} | {u.max_before_ms:.0f} |"
            for peer, u in updates.items()
        ]
    return "\n".join(out) + "\n"


def save(
    folder: Path,
    starts: dict[tuple[str, str], Start],
    rows: Sequence[Row],
    updates: dict[str, UpdateFigures],
) -> None:
    """Write `table.md`, `figures.json` and `plot.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.md").write_text(table(starts, rows, updates))
    figures: dict[str, Any] = {
        "machine": machine(),
        "rows": [row._asdict() for row in rows],
        "starts": [{"peer": p, "work": w, **s._asdict()} for (p, w), s in starts.items()],
        "updates": {peer: figures._asdict() for peer, figures in updates.items()},
    }
    (folder / "figures.json").write_text(json.dumps(figures, indent=1))
    _plot(folder / "plot.png", rows)


def _plot(path: Path, rows: Sequence[Row]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    works = [work for work in WORKS if any(row.work == work for row in rows)]
    figure, axes = plt.subplots(len(works), 2, figsize=(11, 2.6 * len(works)), squeeze=False)
    for line, work in zip(axes, works, strict=True):
        chosen = [row for row in rows if row.work == work]
        most = max(row.connections for row in chosen)
        last = [row for row in chosen if row.connections == most]
        labels = [PEERS[row.peer].label for row in last]
        colors = ["#1a7f5a" if row.peer == "modelcloud" else "#9aa5b1" for row in last]
        for axis, values, title in (
            (line[0], [row.per_second for row in last], "requests/s"),
            (line[1], [row.cpu_us for row in last], "server CPU µs per request"),
        ):
            bars = axis.barh(labels, values, color=colors)
            axis.bar_label(bars, [f"{value:,.0f}" for value in values], padding=3, fontsize=8)
            axis.set_title(f"{work}, {most} connections: {title}", fontsize=9)
            axis.margins(x=0.15)
            axis.invert_yaxis()
            axis.spines[["top", "right"]].set_visible(False)
            axis.tick_params(labelsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)
