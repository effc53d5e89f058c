"""The words of the pages: English as it stands in the code, other languages from one catalogue.

Must never: fail for want of a translation; English is better than nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

#: Language → how it calls itself.
LANGUAGES = {"en": "English", "zh": "中文"}
CATALOGUE = Path(__file__).parent / "static" / "chinese.json"
COOKIE = "modelcloud_language"


class Words:
    """The words of one language: `words("{count} versions", count=3)`."""

    def __init__(self, language: str) -> None:
        self.language = language if language in LANGUAGES else "en"
        self._catalogue: Mapping[str, str] = {} if self.language == "en" else catalogue()

    def __call__(self, text: str, **values: object) -> str:
        """`text` in this language, with `values` in their places."""
        found = self._catalogue.get(text, text)
        return found.format(**values) if values else found


@cache
def catalogue() -> Mapping[str, str]:
    """English → Chinese."""
    found: dict[str, str] = json.loads(CATALOGUE.read_text("utf-8"))
    return found


def language_of(cookie: str | None, accepts: str) -> str:
    """The language of a browser: the one that was chosen, else the first it accepts."""
    if cookie in LANGUAGES:
        return cookie
    for wanted in accepts.split(","):
        language = wanted.strip()[:2].lower()
        if language in LANGUAGES:
            return language
    return "en"
