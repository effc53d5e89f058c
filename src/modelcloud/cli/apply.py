"""`modelcloud apply`: what a conf.ini says, made so on a platform, once or whenever it changes.

Must never: call it done before the platform says that each rollout is.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelcloud.cli import parse, session, show
from modelcloud.errors import ModelcloudError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from modelcloud.packages.apply import Applied, Asked
    from modelcloud.packages.plan import Change
    from modelcloud.platform import Platform
    from modelcloud.serve.watch import Look

#: Before the name of a service, what becomes of it.
SIGNS = {"add": "+", "change": "~", "remove": "-", "keep": "="}


def apply(
    conf: Annotated[
        Path, typer.Argument(metavar="[CONF]", help="The file; its folder holds algopkg/.")
    ] = Path("conf.ini"),
    *,
    group: Annotated[
        str | None,
        typer.Option("--group", "-g", metavar="GROUP", help="Of services that are new; else own."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", metavar="", help="Show what there is to do; do nothing.")
    ] = False,
    watch: Annotated[
        bool,
        typer.Option("--watch", metavar="", help="Go on, and apply it whenever a file changes."),
    ] = False,
    engine: Annotated[
        str | None,
        typer.Option(metavar="local|ray", parser=parse.engine, help="Of sections that name none."),
    ] = None,
    adopt: Annotated[
        bool,
        typer.Option("--adopt", metavar="", help="Keep services of these names that are there."),
    ] = False,
    url: session.Url = None,
    as_json: show.Json = False,
) -> None:
    """Make a platform what a conf.ini says, live; what is as it says is not touched."""
    if watch and (dry_run or as_json):
        raise typer.BadParameter("--watch goes with neither --dry-run nor --json")

    def once() -> bool:
        return _once(conf, url, group, engine or "", dry_run=dry_run, adopt=adopt, as_json=as_json)

    if not watch:
        if not once():
            raise typer.Exit(1)
        return
    with contextlib.suppress(KeyboardInterrupt):  # what was begun goes on at the platform
        _watch(conf, once)


def _once(
    path: Path,
    url: str | None,
    group: str | None,
    engine: str,
    *,
    dry_run: bool,
    adopt: bool,
    as_json: bool,
) -> bool:
    """Apply it; whether all of it is so now.

    Raises:
        Refused: something of it is wrong, and nothing was changed. Each is told by itself.
    """
    from modelcloud.packages import apply as applying
    from modelcloud.packages.check import read_text
    from modelcloud.packages.ini import Refused

    display = _Display(show.console(stderr=as_json))
    try:
        asked = applying.read(path, read_text(path), engine)
        with _connected(url, asked) as platform:
            display.platform = platform
            if not dry_run and not asked.problems:
                applying.settle(platform, asked, display)
            changes = applying.planned(platform, asked, group, adopt=adopt)
            if not as_json:
                _show(changes)
            if dry_run:
                return _told(applying.proposed(changes), as_json=as_json)
            done = applying.carry_out(platform, asked, changes, group, display)
    except Refused as refused:
        for problem in refused.problems:
            print(show.plain(str(problem)), file=sys.stderr)
        count = len(refused.problems)
        told = "1 problem" if count == 1 else f"{count} problems"
        raise UsageError(f"{path}: {told}; nothing was changed") from None
    return _told(done, as_json=as_json)


def _connected(url: str | None, asked: Asked) -> Platform:
    """The platform.

    Raises:
        Refused: it cannot be asked, and the file has problems of its own, which are told then.
    """
    from modelcloud.packages.ini import Refused

    try:
        platform = session.connect(url)
        platform.whoami()
    except ModelcloudError:
        if asked.problems:
            raise Refused(asked.problems) from None
        raise
    return platform


def _show(changes: list[Change]) -> None:
    """What becomes of each service, a line each."""
    rows = [
        (SIGNS[change.kind.value], change.name, "; ".join(change.words) or "as it is")
        for change in changes
    ]
    if not rows:
        print("nothing is asked for, and nothing of this file runs")
        return
    found = show.table(("", "", ""), rows)
    found.show_header = False
    show.console().print(found)


def _told(done: list[Applied], *, as_json: bool) -> bool:
    import msgspec

    if as_json:
        show.as_text(msgspec.to_builtins(done))
    failed = [one for one in done if one.error]
    for one in failed:
        print(show.plain(f"modelcloud: {one.name}: {one.error}"), file=sys.stderr)
    return not failed


def _watch(path: Path, once: Callable[[], bool]) -> None:
    """Apply it after every edit; in the main thread, so that Ctrl-C ends an apply as it is."""
    from modelcloud.serve.watch import INTERVAL_S, Settling

    look = _look_of(path)
    settling = Settling(look())
    while True:
        time.sleep(INTERVAL_S)
        if not settling.edited(look()):
            continue
        try:
            once()
        except ModelcloudError as error:
            print(show.plain(f"modelcloud: {error.message}"), file=sys.stderr)
        print("watching; Ctrl-C ends it, and what serves goes on", flush=True)


def _look_of(path: Path) -> Callable[[], Look]:
    """The present look of a conf.ini and all that it names; of a bad one, what the last named."""
    from modelcloud.packages import conf, sources
    from modelcloud.serve.watch import look_at

    files: list[Path] = []

    def look() -> Look:
        seen = look_at(path)
        with contextlib.suppress(OSError, UnicodeDecodeError):
            found, _ = conf.parse(path.read_text("utf-8-sig"), str(path))
            files[:] = sources.watched(found, path.resolve().parent)
        for file in files:
            seen.update(look_at(file))
        return seen

    return look


class _Display:
    """Lines, and bars on a terminal. `platform` is whom it asks how a rollout goes."""

    platform: Platform

    def __init__(self, console: Console) -> None:
        self._console = console

    def said(self, text: str) -> None:
        """Take a line."""
        self._console.print(show.plain(text), markup=False, soft_wrap=True)

    def sent(self, name: str, send: Callable[[Callable[[int, int], None]], Any]) -> Any:
        """Run `send` under a bar."""
        from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

        columns = (f"sending {name}", BarColumn(bar_width=24), DownloadColumn(),
                   TransferSpeedColumn())  # fmt: skip
        shown = self._console
        with Progress(*columns, console=shown, disable=not shown.is_terminal, transient=True) as b:
            task = b.add_task("", total=None)
            return send(lambda sent, size: b.update(task, completed=sent, total=size))

    def followed(self, name: str, rollout_id: int) -> Any:
        """The rollout once it has succeeded."""
        from modelcloud.cli.follow import follow

        self.said(f"{name}: rollout {rollout_id}")
        return follow(self.platform, str(rollout_id), self._console)
