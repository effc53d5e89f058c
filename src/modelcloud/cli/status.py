"""`modelcloud status`: what a running server serves, and its last rollouts.

Must never: change anything; it only reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelcloud.cli.show import console as a_console
from modelcloud.cli.show import table as _table
from modelcloud.cli.update import Token, TokenFile, Url, connect
from modelcloud.errors import Forbidden, Unauthorized

if TYPE_CHECKING:
    from rich.table import Table

LAST_ROLLOUTS = 5


def status(url: Url, *, token: Token = None, token_file: TokenFile = None) -> None:
    """Show what is served, by how many workers, and the last rollouts."""
    with connect(url, token, token_file) as client:
        meta, readiness = client.meta(), client.readiness()
        try:
            rollouts, refused = client.rollouts(), ""
        except (Forbidden, Unauthorized) as error:  # rollouts hold what models print
            rollouts, refused = [], f"rollouts: {error.message}"
    console = a_console()
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
