"""The few icons there are, as drawings of 24 by 24 with lines of one width.

Must never: stand alone for a word; who uses one says it beside, or as a label.
"""

from __future__ import annotations

from modelcloud.dashboard.markup import Markup

_PATHS = {
    "overview": "M4 13h6V4H4zM14 20h6v-9h-6zM4 20h6v-3H4zM14 7h6V4h-6z",
    "services": "M12 3l8 4.5v9L12 21l-8-4.5v-9zM4 7.5l8 4.5 8-4.5M12 12v9",
    "register": "M12 16V4M7 9l5-5 5 5M4 16v4h16v-4",
    "monitors": "M2.5 12c2.5-4.5 5.7-6.5 9.5-6.5s7 2 9.5 6.5c-2.5 4.5-5.7 6.5-9.5 6.5"
    "S5 16.5 2.5 12z"
    "M12 15a3 3 0 1 0 0-6 3 3 0 0 0 0 6z",
    "workspace": "M4 4h16v16H4zM9 4v16M12 9h5M12 13h5M5.5 8h1.5M5.5 12h1.5",
    "groups": "M9 11a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7zM2.5 20c.5-3.6 3-5.5 6.5-5.5s6 1.9 6.5 5.5"
    "M16 4.4a3.5 3.5 0 0 1 0 6.2M18.5 15c1.8.8 2.8 2.5 3 5",
    "tokens": "M14.5 9.5a5 5 0 1 0-4.6 4.98L11.5 13H13v-1.5h1.5V10zM10 14.5L4 20.5h4v-2h2v-2",
    "users": "M12 11.5a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM4.5 20.5c.7-4 3.6-6 7.5-6s6.8 2 7.5 6",
    "types": "M5 5h14v14H5zM9 9h6v6H9zM9 2v3M15 2v3M9 19v3M15 19v3M2 9h3M2 15h3M19 9h3M19 15h3",
    "node": "M4 4h16v6H4zM4 14h16v6H4zM8 7h.01M8 17h.01",
    "audit": "M6 3h9l4 4v14H6zM14 3v5h5M9 12h7M9 16h5",
    "menu": "M4 7h16M4 12h16M4 17h16",
    "search": "M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14zM20 20l-4-4",
    "plus": "M12 5v14M5 12h14",
    "close": "M6 6l12 12M18 6L6 18",
    "copy": "M9 9h11v11H9zM5 15H4V4h11v1",
    "back": "M9 14L4 9l5-5M4 9h10a6 6 0 0 1 0 12h-3",
    "deploy": "M5 19l4-1 9-9a5 5 0 0 0 1.5-4.5A5 5 0 0 0 15 6l-9 9zM9 12l3 3M4 14l-1 7 7-1",
    "play": "M7 4l13 8-13 8z",
    "stop": "M6 6h12v12H6z",
    "renew": "M20 11a8 8 0 1 0-2.3 6.3M20 5v6h-6",
    "trash": "M4 7h16M9 7V4h6v3M6.5 7l1 13h9l1-13",
    "edit": "M4 20l1-5L16 4l4 4L9 19z",
    "more": "M12 6h.01M12 12h.01M12 18h.01",
    "door": "M13 4h6v16h-6M3 12h11M10 8l4 4-4 4",
    "key": "M4 11h16v10H4zM8 11V7a4 4 0 0 1 8 0v4",
    "warning": "M12 4L2.5 20h19zM12 10v5M12 17.5h.01",
    "check": "M5 12.5l4.5 4.5L19 7.5",
    "docs": "M5 4h10l4 4v12H5zM9 13l-2 2 2 2M15 13l2 2-2 2",
    "chevron": "M9 6l6 6-6 6",
}


def icon(name: str) -> Markup:
    """An icon; hidden from who has pages read to them."""
    return Markup(
        '<svg class="icon" viewBox="0 0 24 24" width="18" height="18" fill="none" '
        'stroke="currentColor" stroke-width="1.6" stroke-linecap="round" stroke-linejoin="round" '
        f'aria-hidden="true" focusable="false"><path d="{_PATHS[name]}"></path></svg>'
    )
