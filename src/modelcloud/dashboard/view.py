"""What every page is: it reads, draws what it read, and does what is asked for on it.

Must never: know how a page gets to a browser; `tab` does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from pydantic import ValidationError

from modelcloud.dashboard.markup import Markup, join
from modelcloud.dashboard.parts import basic
from modelcloud.dashboard.parts.forms import OPTION, Form
from modelcloud.errors import InvalidInput, ModelcloudError

if TYPE_CHECKING:
    from modelcloud.dashboard.tab import Tab


class Act(NamedTuple):
    """What was done on a page: `args` of what was pressed, `fields` of its form."""

    args: Mapping[str, Any]
    fields: Mapping[str, Any]

    def get(self, name: str) -> str:
        """An argument, as text."""
        return str(self.args.get(name, ""))

    def number(self, name: str) -> int:
        """An argument, as a whole number.

        Raises:
            InvalidInput: it is none.
        """
        text = self.get(name)
        if not (text.isascii() and text.isdecimal() and len(text) < 16):
            raise InvalidInput(name, repr(text[:40]), "a whole number")
        return int(text)


class View:
    """A page.

    A method `do_x` hears of the act `x`. What it raises of `ModelcloudError` is shown: beside the
    fields of the form that is open, else in a corner.

    Attributes:
        section: of the navigation.
        every_s: read again after so many seconds, though nothing is known to have changed.
        form: that is open in a window.
    """

    section: ClassVar[str] = ""
    every_s: ClassVar[float | None] = None

    def __init__(self, tab: Tab, place: Mapping[str, str], query: Mapping[str, str]) -> None:
        self.tab = tab
        self.t = tab.words
        self.asks = tab.asks
        self.place = place
        self.query = query
        self.form: Form | None = None

    @property
    def title(self) -> str:
        """What the page is called."""
        raise NotImplementedError

    async def read(self) -> None:
        """Read what is to be drawn."""

    def draw(self) -> Markup:
        """The page."""
        raise NotImplementedError

    def draw_dialog(self) -> Markup:
        """The window over the page; empty without one."""
        if self.form is None:
            return join()
        return basic.dialog(self.form.title, self.t, self.form.draw(self.t))

    async def opened(self) -> None:
        """The page is in the browser."""

    async def closed(self) -> None:
        """The page is left."""

    def open(self, form: Form) -> None:
        """Open a form in a window."""
        self.form = form

    async def do_shut(self, _: Act) -> None:
        """Close the window."""
        self.form = None

    def done(self, text: str) -> None:
        """Say that something has been done; the form it was done with closes."""
        self.form = None
        self.tab.say(text, "ok")


def problems_of(
    error: ModelcloudError | ValidationError, known: Collection[str] = ()
) -> dict[str, str]:
    """What is wrong, by the field it is wrong with; "" for what belongs to none.

    `known`: names of fields; an option of the model has one that begins with `OPTION`.
    """
    if isinstance(error, ValidationError):
        return {
            _field_of([str(step) for step in one["loc"]], known): str(one["msg"])
            for one in error.errors()
        }
    steps = str(error.fields.get("field", "")).split(".")
    return {_field_of(steps, known): error.message}


def _field_of(steps: Sequence[str], known: Collection[str]) -> str:
    """The field of a value within the body: that of the value, or of what it is in."""
    whole = ".".join(steps)
    names = [OPTION + whole, *(".".join(steps[:length]) for length in range(len(steps), 0, -1))]
    return next((name for name in names if name in known), whole)
