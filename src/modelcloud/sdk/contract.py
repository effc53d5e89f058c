"""The one contract between a model, however it is written, and the worker that runs it.

Must never: know about HTTP, processes or files; every authoring style is an adapter to this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from modelcloud.errors import ModelLoadError
from modelcloud.sdk.data_types.base import DataType

MAX_BATCH = 4096
MAX_BATCH_WAIT_MS = 10_000


class CallKind(str, Enum):
    """What calling a command's function gives."""

    VALUE = "value"
    COROUTINE = "coroutine"
    GENERATOR = "generator"
    ASYNC_GENERATOR = "async_generator"


@dataclass(frozen=True)
class Batch:
    """A command whose function takes many requests in one call.

    Attributes:
        max_size: requests of one call at most.
        max_wait_ms: how long the first of them waits for more. When not given, a worker waits only
            while a wave of requests is still arriving, for a small share of a call's own time.
        stack: the function gets a dict of numpy arrays, the values of each input stacked along a
            new first axis, instead of a list of dicts.

    Raises:
        ModelLoadError: a number that cannot be.
    """

    max_size: int = 32
    max_wait_ms: float | None = None
    stack: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.max_size, int) or not 1 <= self.max_size <= MAX_BATCH:
            raise ModelLoadError(
                f"Batch: max_size is {self.max_size}; accepted: a whole number, 1 to {MAX_BATCH}"
            )
        if self.max_wait_ms is not None and not 0 <= self.max_wait_ms <= MAX_BATCH_WAIT_MS:
            raise ModelLoadError(
                f"Batch: max_wait_ms is {self.max_wait_ms}; accepted: a number from 0 to "
                f"{MAX_BATCH_WAIT_MS}"
            )


@dataclass(frozen=True, kw_only=True)
class Body:
    """What a `whole_body` command takes and gives: JSON Schemas, and a request to show."""

    input_schema: Mapping[str, Any] = field(default_factory=dict)
    output_schema: Mapping[str, Any] = field(default_factory=dict)
    example: Any = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Command:
    """One thing a model can be asked.

    Attributes:
        name: as it stands in the address; letters, digits, `_` and `-`.
        inputs: name → type; empty with `whole_body` set for a command that takes the JSON as it is.
        outputs: name → type.
        description: shown in `/meta` and the docs page.
        kind: what the function returns when called.
        idempotent: whether a request may be tried again when its worker died.
        whole_body: the function gets the decoded JSON body itself, whatever it is, and its answer
            is the JSON answer.
        body: of a `whole_body` command: what that JSON is, as far as it can be told.
        with_request: the function gets a `Request` instead of inputs.
        batch: the function gets the inputs of many requests at once and returns as many results.
        whole_site: a web application: it gets a `Request`, with any method and at any path that is
            not the server's own, and returns a `Response`.
    """

    name: str
    inputs: Mapping[str, DataType] = field(default_factory=dict)
    outputs: Mapping[str, DataType] = field(default_factory=dict)
    description: str = ""
    kind: CallKind = CallKind.VALUE
    idempotent: bool = True
    whole_body: bool = False
    body: Body = field(default_factory=Body)
    with_request: bool = False
    batch: Batch | None = None
    whole_site: bool = False

    @property
    def streams(self) -> bool:
        """Whether it can answer piece by piece."""
        return self.kind in {CallKind.GENERATOR, CallKind.ASYNC_GENERATOR}

    def to_dict(self) -> dict[str, Any]:
        """The command's description as `/meta` and `GET /<command>` show it."""
        if self.whole_body:
            schemas = (dict(self.body.input_schema), dict(self.body.output_schema))
            example = self.body.example
        else:
            schemas = (schema_of(self.inputs), schema_of(self.outputs, inputs=False))
            example = {name: kind.example() for name, kind in self.inputs.items()}
        return {
            "name": self.name,
            "description": self.description,
            "inputs": [{"name": name, **kind.to_dict()} for name, kind in self.inputs.items()],
            "outputs": [{"name": name, **kind.to_dict()} for name, kind in self.outputs.items()],
            "inputSchema": schemas[0],
            "outputSchema": schemas[1],
            "streams": self.streams,
            "idempotent": self.idempotent,
            "wholeBody": self.whole_body,
            "withRequest": self.with_request,
            "wholeSite": self.whole_site,
            "maxBatchSize": self.batch.max_size if self.batch else 1,
            "example": example,
        }


def schema_of(fields: Mapping[str, DataType], *, inputs: bool = True) -> dict[str, Any]:
    """JSON Schema (2020-12) of an object with these fields.

    As inputs, the fields without a default are required; as outputs, all are.
    """
    return {
        "type": "object",
        "properties": {name: kind.json_schema() for name, kind in fields.items()},
        "required": [name for name, kind in fields.items() if not inputs or kind.required],
        "additionalProperties": False,
    }


@dataclass(frozen=True, kw_only=True)
class Signature:
    """What a model offers: its options and commands, in the order they were declared.

    `runtime` is the word for how it is written, such as `function`; `light` names the options that
    `Backend.reconfigure` takes.
    """

    runtime: str = ""
    options: Mapping[str, DataType] = field(default_factory=dict)
    commands: tuple[Command, ...] = ()
    light: frozenset[str] = frozenset()

    def to_dict(self) -> dict[str, Any]:
        """As it travels to the node and is shown in `/meta`."""
        return {
            "runtime": self.runtime,
            "options": [{"name": name, **kind.to_dict()} for name, kind in self.options.items()],
            "optionsSchema": schema_of(self.options),
            "lightOptions": sorted(self.light),
            "commands": [command.to_dict() for command in self.commands],
        }


class Request(Protocol):
    """What a `with_request` command gets."""

    @property
    def method(self) -> str:
        """The request's method, such as GET or POST."""

    @property
    def path(self) -> str:
        """Without the query string."""

    @property
    def query(self) -> str:
        """The query string as it came."""

    @property
    def scheme(self) -> str:
        """How the client spoke to this server: `http` or `https`."""

    @property
    def peer(self) -> str:
        """The client's IP address; empty on a unix socket."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Names in lower case."""

    @property
    def query_params(self) -> Mapping[str, str]:
        """The last value of each name."""

    def read(self) -> bytes:
        """The body as it came (expanded if it was gzip'd)."""

    async def body(self) -> bytes:
        """The same, for who awaits it."""

    async def json(self) -> Any:
        """The body as JSON; raises `errors.UsageError` if it is none."""


@dataclass(frozen=True, kw_only=True)
class Response:
    """What a `whole_site` command answers; framing and connection headers are the gateway's."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes


class Backend(Protocol):
    """One loaded (or loadable) model; all that a worker knows of it."""

    @property
    def signature(self) -> Signature:
        """Commands and options; the same after `load`, which may tell more of a command's body."""

    def load(self, options: dict[str, Any]) -> None:
        """Load the model. `options` are complete and deserialised. May take minutes; may raise."""

    def handler(self, command: str) -> Callable[[Any], Any]:
        """The callable of a command, after `load`.

        It takes the deserialised inputs (a dict by name; the JSON value for `whole_body`; a
        `Request` for `with_request`) and returns what `Command.kind` says. A single-output
        command may return the bare value; a whole-body one returns its JSON answer.
        """

    def reconfigure(self, config: dict[str, Any]) -> None:
        """Take changed light options (see `Signature.light`), deserialised, between two requests.

        Raises:
            NotImplementedError: this model cannot; a new generation is needed.
        """

    def close(self) -> None:
        """Release what the model holds; called once, after the last request."""
