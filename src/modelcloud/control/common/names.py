"""The rule for names of users, groups and instance types.

Must never: know what is named; services have a rule of their own, as they are addresses.
"""

from __future__ import annotations

import re

from modelcloud.errors import InvalidInput

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")


def check_name(name: str, field: str = "name") -> None:
    """Return if `name` is one.

    Raises:
        InvalidInput: it is not.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            field,
            repr(name[:70]),
            "1 to 63 letters, digits, _ or -, beginning with a letter or digit",
        )
