"""What the node says to the person who started it: progress, addresses, ready-to-paste commands.

Must never: show the admin token, or print by itself; it makes lines.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from typing import Any

from modelcloud.config import ServeConfig
from modelcloud.node import sockets
from modelcloud.rollout.records import Kind, Rollout, RolloutState
from modelcloud.types import State

#: An example body longer than this (an image, say) is no use on a terminal.
LONGEST_EXAMPLE = 600


def url_of(config: ServeConfig) -> str:
    """Where a person on this machine reaches the server; `unix:PATH` on a unix socket."""
    if config.uds:
        return f"unix:{config.uds}"
    return sockets.url_of(config.host, config.port, tls=bool(config.tls_cert))


def banner(
    config: ServeConfig, commands: Sequence[dict[str, Any]], options: Sequence[dict[str, Any]]
) -> list[str]:
    """The lines that say where the model is and how to call and update it.

    Args:
        config: with the port that was bound.
        commands: of the signature's `to_dict()`.
        options: likewise, each with its current `value`.
    """
    url = url_of(config)
    base = f"--unix-socket {shlex.quote(config.uds)} http://localhost" if config.uds else url
    token = ' -H "Authorization: Bearer $MODELCLOUD_ADMIN_TOKEN"' if config.admin_token else ""
    change = json.dumps(update_example(options), ensure_ascii=False)
    return [
        f"Serving at {url}",
        "",
        f"  predict  {_prediction(base, commands)}",
        f"  update   curl {base}/setup{token} -d {shlex.quote(change)}",
        f"  docs     {f'curl {base}/docs.json' if config.uds else f'{url}/redoc'}",
        "",
    ]


def _prediction(base: str, commands: Sequence[dict[str, Any]]) -> str:
    if not commands:
        return f"curl {base}/meta"
    command = commands[0]
    address = f"{base}/{command['name']}"
    body = json.dumps(command["example"], ensure_ascii=False)
    if command["wholeSite"]:
        return f"curl {base}/"
    if command["withRequest"] or len(body) > LONGEST_EXAMPLE:
        return f"curl {address}"
    return f"curl {address} -d {shlex.quote(body)}"


def update_example(options: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Options that an update may set: the first that has an evident other value, changed.

    Without one, all of them as they are; without options, nothing, which loads the code anew.
    """
    for option in options:
        value = option["value"]
        if option["type"] == "boolean":
            return {option["name"]: not value}
        others = [choice for choice in option.get("oneOf", ()) if choice != value]
        if others:
            return {option["name"]: others[0]}
    example = {option["name"]: option["value"] for option in options}
    return example if len(json.dumps(example)) <= LONGEST_EXAMPLE else {}


class Narrator:
    """Says each step of each rollout once, as it happens.

    Args:
        say: takes a line.
        rollouts: gives the remembered rollouts, newest first.
    """

    def __init__(self, say: Callable[[str], None], rollouts: Callable[[], list[Rollout]]) -> None:
        self._say = say
        self._rollouts = rollouts
        self._said: tuple[str, State] | None = None

    def look(self) -> None:
        """Say the running rollout's step if it is a new one."""
        running = next((r for r in self._rollouts() if r.state is RolloutState.RUNNING), None)
        if running is None or (running.id, running.step) == self._said:
            return
        self._said = (running.id, running.step)
        if running.step not in {State.PENDING, State.SERVING}:
            self._say(f"{_lead(running)}{running.step.value}")

    def finished(self, rollout: Rollout) -> None:
        """Say how a rollout ended; of the first one, the server says it itself."""
        if rollout.kind is Kind.INITIAL:
            return
        how = rollout.state.value.replace("_", " ")
        if rollout.state is RolloutState.SUCCEEDED:
            to = rollout.target
            self._say(f"{_lead(rollout)}version {to.version}, generation {to.generation} serves")
        else:
            self._say(f"{_lead(rollout)}{how}: {rollout.reason}")


def _lead(rollout: Rollout) -> str:
    if rollout.kind is Kind.INITIAL:
        return "  "
    return f"{rollout.kind.value.capitalize()} {rollout.id}: "
