"""What is shown where there is no page, or none that the user may see."""

from __future__ import annotations

from modelcloud.dashboard.markup import Markup, join
from modelcloud.dashboard.parts.basic import empty, heading, link_button
from modelcloud.dashboard.view import View


class Nowhere(View):
    """Nothing here."""

    @property
    def title(self) -> str:
        """What the page is called."""
        return self.t("Not found") if self._status == "404" else self.t("Not now")

    @property
    def _status(self) -> str:
        return self.query.get("status", "404")

    def draw(self) -> Markup:
        """The page."""
        why = self.query.get("why") or self.t("There is no such page.")
        home = link_button(self.t("To the overview"), "/", kind="primary")
        return join(heading(self.title), empty(why, "", home))
