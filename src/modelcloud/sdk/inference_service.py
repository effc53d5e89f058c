"""`class InferenceService`: made once with the model's path, then given each request's JSON.

Must never: look into a request or an answer; both are the class's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from modelcloud.sdk.blame import place_of, refused, user_code
from modelcloud.sdk.contract import Command, Signature
from modelcloud.sdk.declare import call_kind, summary, takes

CLASS_NAME = "InferenceService"
COMMAND = "predict"


class InferenceServiceBackend:
    """A class with `__init__(model_path)` and `process_request(request)`, as a Backend.

    Args:
        service: the class.
        model_path: file or folder of the model.

    Raises:
        ModelLoadError: a method is missing or cannot be called like this.
    """

    def __init__(self, service: type[Any], model_path: str) -> None:
        process = getattr(service, "process_request", None)
        if not callable(process) or not takes(process, 2) or not takes(service, 1):
            raise refused(
                f"{service.__name__} does not fit; accepted: a class with __init__(self, "
                "model_path) and process_request(self, request)",
                place_of(service),
            )
        self._class, self._model_path = service, model_path
        self._service: Any = None
        self._command = Command(
            name=COMMAND,
            description=summary(process) or "Answers a request of any JSON form.",
            kind=call_kind(process),
            whole_body=True,
        )

    @property
    def signature(self) -> Signature:
        """The command `predict`; no options."""
        return Signature(runtime="inference_service", commands=(self._command,))

    def load(self, options: dict[str, Any]) -> None:
        """Make the service.

        Raises:
            ModelLoadError: its `__init__` raised.
        """
        with user_code(f"{self._class.__name__}.__init__"):
            self._service = self._class(self._model_path)

    def handler(self, command: str) -> Callable[[Any], Any]:
        """The service's own `process_request`."""
        handler: Callable[[Any], Any] = self._service.process_request
        return handler

    def reconfigure(self, config: dict[str, Any]) -> None:
        """Not possible: the class has no method for it.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the service."""
        self._service = None
