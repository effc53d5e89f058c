"""Reads the body of `POST /setup`: bare options, or an envelope with more than options.

Must never: look at a file or begin anything; text in, `Change` out.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec

from modelcloud.codecs.native import parse_json
from modelcloud.errors import UsageError
from modelcloud.rollout.snapshot import check_strategy
from modelcloud.sdk.data_types.base import describe
from modelcloud.serve.updates import Change
from modelcloud.types import Strategy, StrategySpec

_STRATEGIES = ", ".join(strategy.value for strategy in Strategy)


def read_change(body: bytes, declared: Collection[str]) -> Change:
    """Return the change that a body asks for.

    A body whose keys are all declared options is bare, even where one of them is named like a
    field of the envelope. So is one without any field of the envelope: it names options that the
    code as it is now may declare.

    Args:
        body: as it came; nothing stands for `{}`.
        declared: names of the options of what serves.

    Raises:
        UsageError: it is neither.
    """
    content = parse_json(body or b"{}")
    if not isinstance(content, dict):
        raise UsageError(
            f"body: got {describe(content)}; accepted: an object of options, or an envelope with "
            "any of: " + ", ".join(Change.__struct_fields__)
        )
    envelope = content.keys() & set(Change.__struct_fields__)
    if content.keys() <= set(declared) or not envelope:
        return Change(options=content)
    extra = sorted(content.keys() - envelope)
    if extra:
        raise UsageError(
            f"{', '.join(extra)}: stands beside {', '.join(sorted(envelope))}; accepted: options "
            "only, or all options inside `options`",
            field=extra[0],
        )
    if "strategy" in content:
        content["strategy"] = read_strategy(content["strategy"])
    try:
        return msgspec.convert(content, Change)
    except msgspec.ValidationError as error:
        raise UsageError(f"body: {error}; accepted: an envelope as in /docs.json") from None


def read_strategy(given: Any) -> StrategySpec:
    """The strategy that a name, or an object with its numbers, stands for.

    Raises:
        UsageError: there is none of this name, or its numbers allow no step.
    """
    try:
        spec = msgspec.convert({"name": given} if isinstance(given, str) else given, StrategySpec)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"strategy: {error}; accepted: one of {_STRATEGIES}, or an object with "
            + ", ".join(StrategySpec.__struct_fields__),
            field="strategy",
        ) from None
    check_strategy(spec)
    return spec
