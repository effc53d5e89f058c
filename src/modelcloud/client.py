"""Call a served model, and update it, from Python.

Must never: retry by itself, hide an answer's error, or print; the command line is built on this.
"""

from __future__ import annotations

import json
from types import TracebackType
from typing import Any

import httpx

from modelcloud import errors
from modelcloud.types import StrategySpec

#: Over the longest that a server with its defaults lets a rollout take.
UPDATE_TIMEOUT_S = 1500.0

#: Every error class whose status no other class of the tree shares; the tests hold it complete.
#: Of those that share one, the most general stands for it.
ERROR_OF_STATUS: dict[int, type[errors.ModelcloudError]] = {
    400: errors.UsageError,
    401: errors.Unauthorized,
    403: errors.Forbidden,
    404: errors.NotFound,
    405: errors.MethodNotAllowed,
    408: errors.DeadlineExceeded,
    409: errors.Conflict,
    412: errors.PreconditionFailed,
    413: errors.TooLarge,
    415: errors.UnsupportedMedia,
    422: errors.UpdateFailed,
    429: errors.TooManyRequests,
    431: errors.TooLarge,
    500: errors.ModelError,
    502: errors.WorkerLost,
    503: errors.Overloaded,
    504: errors.DeadlineExceeded,
}


class Unreachable(errors.ModelcloudError):
    """No answer came: nothing listens there, or the connection broke or timed out."""

    status = 503


class Client:
    """A connection to one served model.

    Args:
        url: where it is served, `http://127.0.0.1:8080`, or `unix:PATH` for a unix socket.
        token: the admin token, where the server has one.
        timeout_s: longest wait for one answer, in seconds.
        transport: stands in for the network, as in `httpx.Client`.

    Every method raises the type of `modelcloud.errors` that fits the answer's status, with the
    server's own message, and `Unreachable` where no answer came.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout_s: float = 60.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = base = url.rstrip("/")
        if url.startswith("unix:"):
            path = url.removeprefix("unix:")
            if not path:
                raise errors.UsageError(f"{url!r} is no address; accepted: unix:PATH")
            base = "http://localhost"
            transport = transport or httpx.HTTPTransport(uds=path)
        headers = {"authorization": f"Bearer {token}"} if token else {}
        try:
            self._http = httpx.Client(
                base_url=base, headers=headers, timeout=timeout_s, transport=transport
            )
        except httpx.InvalidURL as error:
            raise errors.UsageError(f"{url!r} is no address: {error}") from None

    def predict(self, command: str, **inputs: Any) -> Any:
        """Call a command with its inputs in JSON form; the answer's JSON."""
        return self._call("POST", f"/{command}", json=inputs)

    def meta(self) -> dict[str, Any]:
        """What is served: version, options, commands with inputs and outputs."""
        return self._record("modelcloud", "GET", "/meta")

    def readiness(self) -> dict[str, Any]:
        """Whether predictions are answered (`ready`), by how many `workers`, else the `reasons`."""
        response = self._send("GET", "/readyz")
        record = _json_of(response.content)
        if response.status_code in {200, 503} and isinstance(record, dict) and "ready" in record:
            return record
        raise error_of(response.status_code, response.content)

    def ready(self) -> bool:
        """Whether the service is ready for requests; False too where nothing listens."""
        try:
            return self.readiness()["ready"] is True
        except (errors.Overloaded, Unreachable):
            return False

    def update(
        self,
        options: dict[str, Any] | None = None,
        artifact: str | None = None,
        strategy: StrategySpec | str | None = None,
        *,
        model_path: str | None = None,
        wait: bool = True,
        timeout_s: float = UPDATE_TIMEOUT_S,
    ) -> dict[str, Any]:
        """Replace the model while it serves.

        Args:
            options: the options that change, in JSON form; the others stay.
            artifact: path, on the server, of the new artifact; the served file again if None.
            model_path: path, on the server, that the model is told to load from.
            strategy: `blue_green`, `rolling` or `recreate`, else the server's own.
            wait: return when the switch is done; if False, once the update is accepted.
            timeout_s: longest wait for the switch; the server gives up before by itself, so this
                only guards against one that went silent.

        Returns:
            The server's answer: `success`, `rollout` (its id), `generation`, `version` …

        Raises:
            UsageError: an option does not fit; nothing was started.
            UpdateFailed: the new generation did not come up; the old one serves on.
            Conflict: a newer update took this one's place.
        """
        body: dict[str, Any] = {"options": options or {}}
        if artifact is not None:
            body["artifact"] = artifact
        if model_path is not None:
            body["model_path"] = model_path
        if isinstance(strategy, StrategySpec):
            body["strategy"] = {
                "name": strategy.name.value,
                "max_surge": strategy.max_surge,
                "max_unavailable": strategy.max_unavailable,
            }
        elif strategy is not None:
            body["strategy"] = strategy
        return self._change("/setup", wait, timeout_s, json=body)

    def rollback(self, *, wait: bool = True, timeout_s: float = UPDATE_TIMEOUT_S) -> dict[str, Any]:
        """Go back to the generation that served before; `wait` and the answer as of `update`."""
        return self._change("/rollback", wait, timeout_s)

    def rollouts(self) -> list[dict[str, Any]]:
        """The recorded rollouts, newest first."""
        return list(self._record("rollouts", "GET", "/rollouts")["rollouts"])

    def rollout(self, rollout_id: int | str) -> dict[str, Any]:
        """One rollout: its state, step, per-worker versions and log lines."""
        return self._record("state", "GET", f"/rollouts/{rollout_id}")

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Client:  # noqa: PYI034 — Self is not in Python 3.10
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _change(self, path: str, wait: bool, timeout_s: float, **body: Any) -> dict[str, Any]:
        if wait:
            return self._record("rollout", "POST", path, timeout=timeout_s, **body)
        return self._record("rollout", "POST", path, params={"wait": "false"}, **body)

    def _record(self, field: str, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        """An answer that holds `field`, as every server of this package gives it."""
        answer = self._call(method, path, **arguments)
        if not isinstance(answer, dict) or field not in answer:
            raise errors.ModelcloudError(f"what answers at {self.url} is no modelcloud server")
        return answer

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        response = self._send(method, path, **arguments)
        if not response.is_success:
            raise error_of(response.status_code, response.content)
        answer = _json_of(response.content)
        if answer is _NO_JSON:
            raise errors.ModelcloudError(f"{self.url}{path} answered no JSON")
        return answer

    def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **arguments)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise errors.UsageError(f"{self.url!r} is no address: {error}") from None
        except httpx.TimeoutException:
            raise Unreachable(f"{self.url}{path} did not answer in time") from None
        except httpx.RequestError as error:
            raise Unreachable(f"no answer from {self.url}: {error}") from None


def error_of(status: int, body: bytes) -> errors.ModelcloudError:
    """The error that an answer with this status and body stands for."""
    message, fields = f"the server answered {status}", {}
    answer = _json_of(body)
    if isinstance(answer, dict) and isinstance(answer.get("error"), str):
        fields = {str(name): value for name, value in answer.items() if name != "error"}
        message = answer["error"]
    error = ERROR_OF_STATUS.get(status, errors.ModelcloudError)(message)
    error.status = status
    error.fields = fields
    return error


_NO_JSON: Any = object()


def _json_of(body: bytes) -> Any:
    """The JSON value of a body, or `_NO_JSON`."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return _NO_JSON
