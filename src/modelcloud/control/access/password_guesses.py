"""How many passwords may be tried: for one user from one address, from one address, for one user.

One address alone never reaches the limit of a user, so whoever is elsewhere cannot lock a user out
from there; it takes many addresses. Those behind one address share a limit that the mistakes of one
of them do not reach.

Must never: see a password.
"""

from __future__ import annotations

from collections.abc import Callable

from modelcloud.serve.guesses import Guesses

#: From one address, for whomever, within `serve.access.GUESS_WINDOW_S`.
OF_ADDRESS = 100
#: For one user, from wherever; what one address may try in that time is less.
OF_USER, USER_WINDOW_S = 400, 1800.0


class PasswordGuesses:
    """Wrong passwords of late.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        what = "wrong passwords"
        self._both = Guesses(what, clock)
        self._address = Guesses(what, clock, most=OF_ADDRESS)
        self._user = Guesses(what, clock, most=OF_USER, window_s=USER_WINDOW_S)

    def begin(self, user: str, peer: str) -> None:
        """Count a try before it is known to be wrong: many at the same time are as many guesses.

        Raises:
            TooManyRequests: there were too many.
        """
        counted = self._counted(user, peer)
        for guesses, key in counted:
            guesses.check(key)
        for guesses, key in counted:
            guesses.add(key)

    def forgive(self, user: str, peer: str) -> None:
        """The try was right."""
        for guesses, key in self._counted(user, peer):
            guesses.forgive(key)

    def _counted(self, user: str, peer: str) -> tuple[tuple[Guesses, str], ...]:
        return (self._both, f"{peer} {user}"), (self._address, peer), (self._user, user)
