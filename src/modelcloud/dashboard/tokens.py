"""The token in a page's forms: made from its session, so that only a page of the session has it.

Must never: let a session's token be found from it.
"""

from __future__ import annotations

import hashlib
import hmac


def form_token(session: str) -> str:
    """The token of the forms of a session."""
    return hashlib.sha256(b"modelcloud form\0" + session.encode()).hexdigest()


def is_form_token(session: str, given: str) -> bool:
    """Whether a form comes from a page of this session."""
    return hmac.compare_digest(form_token(session).encode(), given.encode("utf-8", "replace"))
