"""What requests about deployments may hold, and its translation into records of the platform.

Must never: ask the store; what depends on other rows is checked by the operations.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import msgspec
from pydantic import Field, model_validator

from modelcloud.control.common.records import Body
from modelcloud.errors import InvalidInput
from modelcloud.serve.setup_body import read_strategy
from modelcloud.types import Dispatch, DispatchPolicy, StrategySpec

MAX_REPLICAS = 64
MAX_THREADS = 64
MAX_WEIGHT = 1_000_000.0
MAX_KEEP_WARM_S = 24 * 3600.0

#: Below `/<service>/` these stand for something else.
RESERVED_LABELS = frozenset({"docs.json", "meta", "redoc", "setup"})
_LABEL = re.compile(r"[a-z][a-z0-9_-]{0,39}", re.ASCII)
_DISPATCH_KEY = re.compile(r"(header|query):[!-~]{1,100}", re.ASCII)

Replicas = Annotated[int, Field(ge=1, le=MAX_REPLICAS)]
Threads = Annotated[int, Field(ge=1, le=MAX_THREADS)]
Weight = Annotated[float, Field(ge=0, le=MAX_WEIGHT)]
KeepWarm = Annotated[float, Field(ge=0, le=MAX_KEEP_WARM_S)]
#: A name, or an object as `types.StrategySpec` and `types.Dispatch` have it.
Named = str | dict[str, Any]


class DeploySettings(Body):
    """How a version is put online.

    Attributes:
        instance_type: needed with `new`. With `replace`, this and all that follows stay as they
            are where they are not given; `options` as far as the new version declares them.
        weight: its share of `/predict/<service>`. A new version beside others gets 0 unless told
            otherwise, so that it takes no request unasked.
        label: leads to it from the moment it serves.
    """

    instance_type: str | None = None
    replicas: Replicas | None = None
    dispatch: Named | None = None
    strategy: Named | None = None
    options: dict[str, Any] | None = None
    threads: Threads | None = None
    keep_warm_s: KeepWarm | None = None
    label: str | None = None
    weight: Weight | None = None


class DeployBody(DeploySettings):
    """Put a version online: beside the others (`new`), or in place of one (`replace`).

    Attributes:
        replaces: the online version that is replaced; needed with `replace` only.
        engine: where its workers run. Without it they stay where those of an earlier generation
            of the deployment are; of a first one, the platform's settings say it.
    """

    version: int
    mode: Literal["new", "replace"] = "new"
    replaces: int | None = None
    engine: Literal["local", "ray"] | None = None


class UpdateBody(Body):
    """Change options of what is online; those not named stay. `strategy` is for this once."""

    options: dict[str, Any] = Field(default_factory=dict)
    strategy: Named | None = None


class ScaleBody(Body):
    """Have so many replicas."""

    replicas: Replicas


class RollbackBody(Body):
    """Go back; `strategy` matters where the earlier generation is no longer warm."""

    strategy: Named | None = None


#: A token of RFC 9110, 5.6.2: what headers and cookies are named by.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class StickyBody(Body):
    """What keeps a client at one version."""

    kind: Literal["header", "cookie", "body"]
    name: Annotated[str, Field(min_length=1, max_length=100)]

    @model_validator(mode="after")
    def _can_come(self) -> StickyBody:
        if self.kind != "body" and not _TOKEN.fullmatch(self.name):
            raise InvalidInput(
                "sticky.name",
                repr(self.name),
                f"the name of a {self.kind}: letters, digits, - or _",
            )
        return self


class TrafficBody(Body):
    """How requests are shared out; what is left out stays as it is.

    Attributes:
        weights: version → weight, beside those not named.
        labels: all of them: name → version.
        shadow: all of them: version → share (0 to 1) of the others' requests copied to it.
        sticky: null: none.
    """

    weights: dict[str, Weight] | None = None
    labels: dict[str, int] | None = None
    shadow: dict[str, Annotated[float, Field(ge=0, le=1)]] | None = None
    sticky: StickyBody | None = None


def strategy_of(given: Named | None, default: StrategySpec) -> StrategySpec:
    """The strategy that is asked for.

    Raises:
        UsageError: there is none of this name, or its numbers allow no step.
    """
    return default if given is None else read_strategy(given)


def dispatch_of(given: Named | None, default: Dispatch) -> Dispatch:
    """The dispatch policy that is asked for.

    Raises:
        InvalidInput: there is none of this name, or its key does not fit.
    """
    if given is None:
        return default
    accepted = ", ".join(policy.value for policy in DispatchPolicy)
    try:
        dispatch = msgspec.convert({"policy": given} if isinstance(given, str) else given, Dispatch)
    except msgspec.ValidationError as error:
        raise InvalidInput(
            "dispatch", str(error), f"one of {accepted}, or an object with policy and key"
        ) from None
    if dispatch.policy is DispatchPolicy.CONSISTENT_HASH:
        if not _DISPATCH_KEY.fullmatch(dispatch.key):
            raise InvalidInput(
                "dispatch.key", repr(dispatch.key[:100]), "header:NAME or query:NAME"
            )
    elif dispatch.key:
        raise InvalidInput(
            "dispatch.key", repr(dispatch.key[:100]), "a key with consistent_hash only"
        )
    return dispatch


def check_label(name: str) -> str:
    """The label, if it may be one: it stands in addresses where versions' numbers stand too.

    Raises:
        InvalidInput: it may not.
    """
    if not _LABEL.fullmatch(name) or name in RESERVED_LABELS:
        raise InvalidInput(
            "label",
            repr(name[:60]),
            "a lower-case letter, then up to 39 of a-z 0-9 _ -; not "
            + ", ".join(sorted(RESERVED_LABELS)),
        )
    return name
