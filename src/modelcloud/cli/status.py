"""`modelcloud status`: what a running server serves, and its last rollouts.

Must never: change anything; it only reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelcloud.cli.update import Token, TokenFile, Url, connect
from modelcloud.errors import Forbidden, Unauthorized

if TYPE_CHECKING:
    from rich.table import Table

LAST_ROLLOUTS = 5
#: Where no terminal says how wide it is, nothing is cut.
WIDTH_OF_A_FILE = 400


def status(url: Url, *, token: Token = None, token_file: TokenFile = None) -> None:
    """Show what is served, by how many workers, and the last rollouts."""
    with connect(url, token, token_file) as client:
        meta, readiness = client.meta(), client.readiness()
        try:
            rollouts, refused = client.rollouts(), ""
        except (Forbidden, Unauthorized) as error:  # rollouts hold what models print
            rollouts, refused = [], f"rollouts: {error.message}"
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH_OF_A_FILE
    console.print(_service(meta, readiness))
    for line in [*readiness["reasons"], refused]:
        if line:
            console.print(line, markup=False)
    if rollouts:
        console.print(_rollouts(rollouts[:LAST_ROLLOUTS]))


def _service(meta: dict[str, Any], readiness: dict[str, Any]) -> Table:
    workers = readiness["workers"]
    return _table(
        ("service", "version", "generation", "workers", "state"),
        [
            (
                meta["service"],
                meta["version"],
                meta["generation"],
                f"{workers['ready']} of {workers['wanted']}",
                meta["status"],
            )
        ],
    )


def _rollouts(rollouts: list[dict[str, Any]]) -> Table:
    from modelcloud.cli.follow import words

    return _table(
        ("rollout", "kind", "generation", "state", "step", "accepted (UTC)", "reason"),
        [
            (
                rollout["id"],
                rollout["kind"],
                rollout["to"]["generation"],
                words(rollout["state"]),
                words(rollout["step"]),
                rollout["accepted_at"][:19].replace("T", " "),
                rollout["reason"],
            )
            for rollout in rollouts
        ],
    )


def _table(heads: tuple[str, ...], rows: list[tuple[Any, ...]]) -> Table:
    """A table of plain values; what came from the server is never read as markup."""
    from rich.table import Table
    from rich.text import Text

    table = Table(*heads, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text("-" if cell is None else str(cell)) for cell in row))
    return table
