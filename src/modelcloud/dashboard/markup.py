"""HTML that is safe by the way it is made: text is escaped, unless it was made here.

Must never: take a string for HTML, or an address that a browser would run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape
from typing import TypeAlias

_VOID = frozenset({"br", "hr", "img", "input", "link", "meta"})
_ADDRESSES = frozenset({"action", "formaction", "href", "src"})
_PICTURES = frozenset({"data:image/png;base64", "data:image/jpeg;base64"})
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")
_ACCEPTED = ("/", "#", "?", "http://", "https://")


class Markup(str):
    """HTML, as opposed to text."""

    __slots__ = ()


Child: TypeAlias = Markup | str | int | float | Iterable["Child"] | None
Attribute: TypeAlias = str | int | float | bool | None


def element(name: str, /, *children: Child, **attributes: Attribute) -> Markup:
    """An element. `class_` is `class`, `data_key` is `data-key`; True is bare, None and False none.

    Raises:
        ValueError: an address that is neither of this site nor of the web.
    """
    opened = f"<{name}{''.join(_attribute(*pair) for pair in attributes.items())}>"
    if name in _VOID:
        return Markup(opened)
    return Markup(f"{opened}{join(*children)}</{name}>")


def image(label: str, uri: str) -> Markup:
    """A picture that comes with the page, as a data URI.

    Raises:
        ValueError: it is no picture that a browser draws without running anything.
    """
    head, _, data = uri.partition(",")
    if head not in _PICTURES or not _BASE64.fullmatch(data):
        raise ValueError("a PNG or JPEG in base64 is needed")
    return Markup(f'<img class="picture" alt="{escape(label)}" src="{head},{data}">')


def join(*children: Child) -> Markup:
    """Some HTML and texts, one after the other; None is nothing."""
    return Markup("".join(_pieces(children)))


def _pieces(children: Iterable[Child]) -> Iterable[str]:
    for child in children:
        if child is None:
            continue
        if isinstance(child, Markup):
            yield child
        elif isinstance(child, str | int | float):
            yield escape(str(child), quote=False)
        else:
            yield from _pieces(child)


def _attribute(name: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    name = name.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    text = str(value)
    if name in _ADDRESSES and (not text.startswith(_ACCEPTED) or text.startswith("//")):
        raise ValueError(f"{name}: {text[:60]!r} is no address of a page")
    return f' {name}="{escape(text)}"'
