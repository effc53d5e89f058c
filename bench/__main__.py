"""`make bench`: the chosen peers, one after the other, on the same work."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench.apps.work import BODIES
from bench.peers import BENCH, DEFAULT, PEERS
from bench.report import save, table
from bench.run import Row, Start, measure, update
from bench.updates import UpdateFigures


def main() -> int:
    """Measure, print a table, write it with a picture to `bench/results/`."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--peers", default=",".join(DEFAULT),
                        help=f"comma-separated, or `all`: {', '.join(PEERS)}")  # fmt: skip
    parser.add_argument("--work", default=",".join(BODIES), help="comma-separated")
    parser.add_argument("--connections", default="1,16,64", help="comma-separated")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--no-update", action="store_true", help="leave the update out")
    parser.add_argument("--output", type=Path, default=BENCH / "results")
    options = parser.parse_args()
    names = list(PEERS) if options.peers == "all" else options.peers.split(",")
    works = options.work.split(",")
    for given, known in ((names, PEERS), (works, BODIES)):
        if unknown := set(given) - set(known):
            parser.error(f"{', '.join(sorted(unknown))}; accepted: {', '.join(known)}")
    connections = [int(number) for number in options.connections.split(",")]
    starts: dict[tuple[str, str], Start] = {}
    rows: list[Row] = []
    updates: dict[str, UpdateFigures] = {}
    for work in works:
        for name in names:
            if name == "nginx" and work != "pisqrt":
                continue  # what it answers is the same for all
            print(f"{work}: {PEERS[name].label} …", file=sys.stderr, flush=True)
            starts[name, work], more = measure(PEERS[name], work, connections, options.seconds)
            rows += more
    if not options.no_update:
        for name in names:
            print(f"update: {PEERS[name].label} …", file=sys.stderr, flush=True)
            if (figures := update(PEERS[name], "pisqrt")) is not None:
                updates[name] = figures
    save(options.output, starts, rows, updates)
    print(table(starts, rows, updates))
    print(f"Written to {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
