"""Other options for a loaded model: all of them between two requests, or none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest
from msgspec.structs import replace

from modelcloud.data_types import any as any_
from modelcloud.data_types import number
from modelcloud.dataplane.reconfiguring import Reconfiguring
from modelcloud.sdk.contract import Signature
from modelcloud.types import GenerationSpec
from support.loops import on_a_loop

if TYPE_CHECKING:
    from modelcloud.dataplane.executor import Executor
    from modelcloud.sdk.contract import Backend

SPEC = GenerationSpec(
    service="fib", generation=1, version=1, target="m.py", snapshot="", digest="",
    options={"config": "old"},
)  # fmt: skip


class Model:
    """Notes what it is given; raises what its config says, once it has it."""

    signature = Signature(
        options={"config": any_(default=None), "depth": number(default=1)},
        light=frozenset({"config", "depth"}),
    )

    def __init__(self) -> None:
        self.given: list[Any] = []
        self.raises: dict[Any, BaseException] = {}

    def reconfigure(self, config: dict[str, Any]) -> None:
        self.given.append(config)
        if (error := self.raises.get(config.get("config"))) is not None:
            raise error


class Holding:
    """An executor that says when it is held."""

    def __init__(self) -> None:
        self.held: list[bool] = []
        self.idle = True

    async def hold(self, timeout_s: float) -> bool:
        self.held.append(self.idle)
        return self.idle

    def release(self) -> None:
        self.held.append(False)


class Rig:
    """A model that was loaded with `SPEC`, in an executor that runs nothing."""

    def __init__(self) -> None:
        self.model, self.executor = Model(), Holding()
        self.reconfiguring = Reconfiguring(
            cast("Backend", self.model), cast("Executor", self.executor), SPEC
        )

    async def take(self, revision: int, **options: Any) -> tuple[str, bool, dict[str, Any]]:
        """Error, whether it was put back, and what holds."""
        answer = await self.reconfiguring.take(replace(SPEC, revision=revision, options=options))
        assert answer.revision == revision
        return answer.error, answer.restored, answer.options


@on_a_loop
async def test_the_model_gets_what_changed_and_nothing_where_nothing_did() -> None:
    rig = Rig()
    assert await rig.take(2, config="new") == ("", True, {"config": "new", "depth": 1})
    assert (rig.model.given, rig.executor.held) == ([{"config": "new"}], [True, False])
    assert await rig.take(3, config="new") == ("", True, {"config": "new", "depth": 1})
    assert await rig.take(4, config="new", depth=2) == ("", True, {"config": "new", "depth": 2})
    assert rig.model.given[1:] == [{"depth": 2}]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("no"), "reconfigure raised ValueError: no"),
        (SystemExit(1), "reconfigure raised SystemExit: 1"),
        (NotImplementedError(), "cannot take config like this"),
    ],
)
@on_a_loop
async def test_what_it_refuses_is_put_back_before_the_next_request(
    error: BaseException, words: str
) -> None:
    rig = Rig()
    rig.model.raises["bad"] = error
    said, restored, options = await rig.take(2, config="bad")
    assert (words in said, restored, options["config"]) == (True, True, "old")
    assert rig.model.given == [{"config": "bad"}, {"config": "old"}]
    assert rig.executor.held == [True, False]
    assert (await rig.take(3, config="good"))[0] == ""


@on_a_loop
async def test_one_that_cannot_be_put_back_answers_nothing_more() -> None:
    rig = Rig()
    rig.model.raises = {"bad": ValueError("half"), "old": RuntimeError("gone")}
    said, restored, _ = await rig.take(2, config="bad")
    assert not restored
    assert "ValueError: half" in said
    assert "RuntimeError: gone" in said
    assert rig.executor.held == [True]


@on_a_loop
async def test_a_value_that_does_not_fit_and_calls_that_do_not_end_leave_it_untouched() -> None:
    rig = Rig()
    said, restored, options = await rig.take(2, config="new", depth="deep")
    assert (said.startswith("option depth"), restored, options["config"]) == (True, True, "old")
    rig.executor.idle = False
    said, restored, _ = await rig.take(3, config="new")
    assert ("still running" in said, restored) == (True, True)
    assert rig.model.given == []
