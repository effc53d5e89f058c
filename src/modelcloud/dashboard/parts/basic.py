"""Headings, buttons, badges, tables, meters and the like.

Must never: ask for anything; what is shown is handed in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from modelcloud.control.common.records import iso
from modelcloud.dashboard.markup import Attribute, Child, Markup, element, join
from modelcloud.dashboard.parts.icons import icon
from modelcloud.dashboard.words import Words

#: Status and state → the tone it is shown in.
_TONES = {
    "Serving": "ok",
    "serving": "ok",
    "succeeded": "ok",
    "ok": "ok",
    "Failed": "bad",
    "failed": "bad",
    "refused": "bad",
    "Offline": "off",
    "stopped": "off",
    "draining": "off",
    "superseded": "off",
    "registered": "ok",
    "unchanged": "off",
    "waiting": "ok",
    "paused": "off",
    "rolled_back": "warn",
}


def tone_of(word: str) -> str:
    """The tone of a state, of a rollout, a worker, an entry of the audit log."""
    return _TONES.get(word, "busy")


def badge(t: Words, word: str, *, title: str = "") -> Markup:
    """A state, as a dot and a word."""
    tone = tone_of(word)
    return element(
        "span",
        element("span", class_="dot", aria_hidden="true"),
        t(word.replace("_", " ")),
        class_=f"badge tone-{tone}",
        title=title or None,
    )


def chip(*text: Child, tone: str = "") -> Markup:
    """A small fact."""
    return element("span", *text, class_=f"chip {tone}".rstrip())


def button(
    label: str,
    do: str = "",
    *,
    symbol: str = "",
    kind: str = "",
    small: bool = False,
    hidden_label: bool = False,
    **more: Attribute,
) -> Markup:
    """A button that does `do`, or submits its form without one. `kind`: primary, danger, quiet."""
    classes = " ".join(filter(None, ["button", kind, "small" if small else ""]))
    text = element("span", label, class_="unseen" if hidden_label else None)
    more.setdefault(
        "type", "button" if do or "data_copy" in more or "data_shut" in more else "submit"
    )
    if hidden_label:
        more.setdefault("title", label)
    return element(
        "button",
        icon(symbol) if symbol else None,
        text,
        class_=classes,
        data_do=do or None,
        **more,
    )


def link_button(
    label: str, to: str, *, symbol: str = "", kind: str = "", plain: bool = False
) -> Markup:
    """A link that looks like a button."""
    classes = f"button {kind}".rstrip()
    shown = icon(symbol) if symbol else None
    return element("a", shown, element("span", label), href=to, class_=classes, data_plain=plain)


def link(label: Child, to: str, **more: Attribute) -> Markup:
    """A link."""
    return element("a", label, href=to, **more)


def heading(
    title: str, *actions: Child, note: Child = None, crumbs: Sequence[tuple[str, str]] = ()
) -> Markup:
    """The top of a page: where it is, what it is, and what can be done."""
    trail = None
    if crumbs:
        steps = [element("li", link(label, to)) for label, to in crumbs]
        trail = element("nav", element("ol", *steps), class_="crumbs", aria_label="breadcrumb")
    return element(
        "header",
        trail,
        element(
            "div",
            element("h1", title, tabindex="-1"),
            element("div", *actions, class_="actions") if actions else None,
            class_="title",
        ),
        element("p", note, class_="note") if note else None,
        class_="page-head",
    )


def panel(
    title: str, *content: Child, actions: Child = None, key: str = "", class_: str = ""
) -> Markup:
    """A titled part of a page."""
    return element(
        "section",
        element("div", element("h2", title), actions, class_="panel-head"),
        *content,
        class_=f"panel {class_}".rstrip(),
        data_key=key or None,
    )


def empty(title: str, text: Child, *actions: Child) -> Markup:
    """What stands where there is nothing yet, and how that changes."""
    doing = element("div", *actions, class_="actions") if actions else None
    return element(
        "div", element("h2", title), element("p", text) if text else None, doing, class_="empty"
    )


def facts(pairs: Iterable[tuple[str, Child]]) -> Markup:
    """Names and values."""
    rows = [join(element("dt", name), element("dd", value)) for name, value in pairs]
    return element("dl", *rows, class_="facts")


def table(
    caption: str, heads: Sequence[Child], rows: Iterable[Markup], *, empty_text: str = ""
) -> Markup:
    """A table that scrolls sideways where it has to; `rows` are from `row`."""
    shown = list(rows)
    if not shown and empty_text:
        return element("p", empty_text, class_="none")
    return element(
        "div",
        element(
            "table",
            element("caption", caption, class_="unseen"),
            element("thead", element("tr", *(element("th", head, scope="col") for head in heads))),
            element("tbody", *shown),
        ),
        class_="scroll",
        tabindex="0",
        role="region",
        aria_label=caption,
    )


def row(*cells: Child, key: str = "", class_: str = "") -> Markup:
    """A row of a table."""
    return element(
        "tr", *(element("td", cell) for cell in cells), data_key=key or None, class_=class_ or None
    )


def tabs(label: str, current: str, there: Sequence[tuple[str, str, str]]) -> Markup:
    """Parts of one thing, each with name, label and address."""
    links = [
        element("a", text, href=to, aria_current="page" if name == current else None)
        for name, text, to in there
    ]
    return element("nav", *links, class_="tabs", aria_label=label)


def when(at: float | None, *, as_: str = "ago") -> Markup:
    """A time, in words of the browser: `ago`, `clock` or `date`."""
    if at is None:
        return Markup("—")
    text = iso(at)
    shown = text[11:19] if as_ == "clock" else text[:16].replace("T", " ")
    return element("time", shown, datetime=text, data_as=as_)


def meter(label: str, used: float, whole: float, shown: str) -> Markup:
    """How much of something is used."""
    text = element(
        "div", element("span", label), element("span", shown, class_="muted"), class_="meter-text"
    )
    if whole <= 0:  # nothing limits it
        return element("div", text, class_="meter")
    share = min(1.0, used / whole)
    tone = "bad" if share > 0.95 else "warn" if share > 0.8 else "ok"
    return element(
        "div",
        text,
        element(
            "div",
            element("div", class_=f"meter-fill tone-{tone}", style=f"width:{share * 100:.1f}%"),
            class_="meter-bar",
            role="meter",
            aria_label=label,
            aria_valuemin="0",
            aria_valuemax="100",
            aria_valuenow=f"{share * 100:.0f}",
        ),
        class_="meter",
    )


def code(text: str, place: str, t: Words, *, label: str = "") -> Markup:
    """Text to copy; `place` is its id on the page."""
    return element(
        "div",
        element("pre", element("code", text, id=place), tabindex="0", aria_label=label or None),
        button(t("Copy"), symbol="copy", kind="quiet", small=True, data_copy=place),
        class_="code",
    )


def alert(text: Child, *, tone: str = "bad") -> Markup:
    """What has gone wrong, or needs to be known; with the tone ok, what is well."""
    good = tone == "ok"
    return element(
        "div",
        icon("check" if good else "warning"),
        element("div", text),
        class_=f"alert tone-{tone}",
        role="status" if good else "alert",
    )


def size(amount: float) -> str:
    """Bytes, short."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(amount) < 1024:
            return (
                f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"
            )
        amount /= 1024
    return f"{amount:.1f} TiB"


def number(amount: float | None, digits: int = 4) -> str:
    """A number, short; a dash for none."""
    return "—" if amount is None else f"{amount:.{digits}g}"


def count(amount: float) -> str:
    """A count, short: 1234 is 1.2k."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if amount >= limit:
            return f"{amount / limit:.3g}{unit}"
    return f"{amount:.3g}"


def many(t: Words, text: str, count: int) -> str:
    """`{count} thing`, with an s where there are more or none."""
    return t(text if count == 1 else f"{text}s", count=count)


def dialog(title: str, t: Words, *content: Child, wide: bool = False) -> Markup:
    """A window over the page."""
    return element(
        "dialog",
        element(
            "header",
            element("h2", title, id="dialog-title"),
            button(t("Close"), symbol="close", kind="quiet", hidden_label=True, data_shut=True),
            class_="dialog-head",
        ),
        *content,
        class_="wide" if wide else None,
        aria_labelledby="dialog-title",
    )
