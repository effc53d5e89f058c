"""The one error tree. Each type owns its HTTP status and a text that is safe to show.

Must never: carry a traceback, a path of the server or a secret in `message`; such detail
belongs in `detail`, which goes to the log under an error id and, only in `dev`, to the client.

    ModelcloudError
     ├─ UsageError            400  the caller's input is wrong (what, where, what is accepted)
     │   └─ InvalidInput      400  a field of a request does not fit its type
     ├─ Unauthorized          401
     ├─ Forbidden             403
     ├─ NotFound              404
     ├─ MethodNotAllowed      405
     ├─ Conflict              409
     │   └─ Superseded        409  a newer update took this one's place
     ├─ PreconditionFailed    412  an edit was made on what is no longer there
     ├─ TooLarge              413
     ├─ UnsupportedMedia      415
     ├─ KeyReused             422  an idempotency key came again with another request
     ├─ UpdateFailed          422  the candidate did not come up; the old generation serves on
     ├─ TooManyRequests       429  one client asks, or guesses, too often
     ├─ ModelError            500  the model's own exception
     │   └─ ModelLoadError    500  a model file that cannot be served (file, line, what is accepted)
     ├─ WorkerLost            502
     ├─ Overloaded            503
     │   ├─ NotReady          503
     │   └─ StoreUnavailable  503  the store is locked, gone or damaged; nothing was changed
     └─ DeadlineExceeded      504
"""

from __future__ import annotations

from typing import Any


class ModelcloudError(Exception):
    """Base of every error of this package.

    Args:
        message: one or two sentences for the person who caused it; safe to show to anyone.
        detail: what only the log (or a `dev` answer) may show, such as a traceback.
        fields: machine-readable facts that travel beside the message in a JSON answer.
    """

    status = 500

    def __init__(self, message: str, *, detail: str | None = None, **fields: Any) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail
        self.fields = fields

    def to_dict(self) -> dict[str, Any]:
        """The JSON body of an error answer: `{"error": message, …fields}`."""
        return {"error": self.message, **self.fields}


class UsageError(ModelcloudError):
    """The caller's input is wrong; the message says what came and what is accepted."""

    status = 400


class InvalidInput(UsageError):
    """A field does not fit its declared type. `fields` holds `field`, `got` and `accepted`."""

    def __init__(self, field: str, got: str, accepted: str) -> None:
        where = f"{field}: " if field else ""
        super().__init__(f"{where}got {got}; accepted: {accepted}",
                         field=field, got=got, accepted=accepted)  # fmt: skip


class Unauthorized(ModelcloudError):
    """No valid token came with a request that needs one."""

    status = 401


class Forbidden(ModelcloudError):
    """The caller is known, or the place it calls from, and may not do this."""

    status = 403


class NotFound(ModelcloudError):
    """Nothing stands at this address."""

    status = 404


class MethodNotAllowed(ModelcloudError):
    """The address exists, the method does not apply to it."""

    status = 405


class Conflict(ModelcloudError):
    """The state of things does not allow this now."""

    status = 409


class Superseded(Conflict):
    """A newer update took this one's place before it was switched in."""


class PreconditionFailed(ModelcloudError):
    """What an edit was made on has been changed since."""

    status = 412


class TooLarge(ModelcloudError):
    """A body, or what it expands to, is over the limit."""

    status = 413


class UnsupportedMedia(ModelcloudError):
    """A body of a content type that is not accepted here."""

    status = 415


class KeyReused(ModelcloudError):
    """An `Idempotency-Key` came again with another request than the one it stands for."""

    status = 422


class UpdateFailed(ModelcloudError):
    """The candidate generation did not come up; the serving one is untouched."""

    status = 422


class TooManyRequests(ModelcloudError):
    """One client asks, or guesses, too often; try again later."""

    status = 429


class ModelError(ModelcloudError):
    """The model's own code raised."""

    status = 500


class ModelLoadError(ModelError):
    """A model that cannot be served: syntax, missing command, unknown type, failing setup.

    `fields` may hold `file` and `line`; the message ends with what is accepted.
    """


class WorkerLost(ModelcloudError):
    """The worker died with the request and it could not be tried again."""

    status = 502


class Overloaded(ModelcloudError):
    """A queue or a connection limit is full; try again later."""

    status = 503


class NotReady(Overloaded):
    """Nothing serves here yet."""


class StoreUnavailable(Overloaded):
    """The store is locked, gone, full or damaged; what was asked for did not happen."""


class DeadlineExceeded(ModelcloudError):
    """The request's deadline passed before an answer came."""

    status = 504
