"""One region of a page: the server draws its markup, and hears of what is done there.

Must never: decide anything; who draws hands it markup and hears of acts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nicegui
from nicegui.element import Element

from modelcloud.dashboard.markup import Markup

if TYPE_CHECKING:
    from nicegui.events import GenericEventArguments

_ECHARTS = Path(nicegui.__file__).parent / "elements" / "echart" / "dist"


class Live(Element, component="static/live.js", esm={"nicegui-echart": str(_ECHARTS)}):
    """A region.

    Args:
        tag: of the element around it.
        drawn: what it holds at first.
        on_act: is told what was done: `do`, `args` and the `fields` of a form.
        attributes: of the element around it.
    """

    def __init__(
        self,
        tag: str,
        drawn: Markup,
        on_act: Callable[[dict[str, Any]], Awaitable[None]],
        **attributes: str,
    ) -> None:
        super().__init__()
        self._props["as"] = tag
        self._props["drawn"] = drawn
        self._props.update(attributes)
        self._update_method = "redraw"

        async def act(event: GenericEventArguments) -> None:
            if isinstance(event.args, dict):
                await on_act(event.args)

        self.on("act", act)

    def draw(self, drawn: Markup) -> None:
        """Show this from now on."""
        if drawn != self._props["drawn"]:
            self._props["drawn"] = drawn
            self.update()
