"""Shared frozen records and the states of a deployment.

Must never: do I/O or import anything above this layer. Everything here is plain data, so that
decisions made on it (policy, routing, permission) are functions tested without processes.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

import msgspec


class State(str, Enum):
    """Where a generation, or one worker of it, stands."""

    PENDING = "pending"
    FETCHING = "fetching"
    BUILDING_ENV = "building_env"
    LOADING = "loading"
    WARMING = "warming"
    CHECKING = "checking"
    SERVING = "serving"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


#: Legal transitions; every step before `serving` may fail, and anything may be stopped early.
TRANSITIONS: dict[State, frozenset[State]] = {
    State.PENDING: frozenset({State.FETCHING, State.BUILDING_ENV, State.LOADING,
                              State.FAILED, State.STOPPED}),
    State.FETCHING: frozenset({State.BUILDING_ENV, State.LOADING, State.FAILED, State.STOPPED}),
    State.BUILDING_ENV: frozenset({State.LOADING, State.FAILED, State.STOPPED}),
    State.LOADING: frozenset({State.WARMING, State.FAILED, State.STOPPED}),
    State.WARMING: frozenset({State.CHECKING, State.FAILED, State.STOPPED}),
    State.CHECKING: frozenset({State.SERVING, State.FAILED, State.STOPPED}),
    State.SERVING: frozenset({State.DRAINING, State.STOPPED, State.FAILED}),
    State.DRAINING: frozenset({State.SERVING, State.STOPPED}),
    State.STOPPED: frozenset(),
    State.FAILED: frozenset({State.STOPPED}),
}  # fmt: skip


class IllegalTransition(Exception):
    """A state was asked to become one that cannot follow it: a bug, never a user's mistake."""


def advance(current: State, new: State) -> State:
    """Return `new` if it may follow `current`.

    Raises:
        IllegalTransition: it may not (see `TRANSITIONS`).
    """
    if new is current or new in TRANSITIONS[current]:
        return new
    raise IllegalTransition(f"{current.value} → {new.value}")


class Strategy(str, Enum):
    """How a service goes from one generation to the next."""

    BLUE_GREEN = "blue_green"
    ROLLING = "rolling"
    RECREATE = "recreate"


class StrategySpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A strategy and its numbers. `max_surge` and `max_unavailable` (workers) are for `rolling`."""

    name: Strategy = Strategy.BLUE_GREEN
    max_surge: int = 0
    max_unavailable: int = 1


class GenerationSpec(msgspec.Struct, frozen=True, kw_only=True):
    """All that a worker needs to become one replica of a generation.

    Two workers started from equal specs are the same generation; any difference is an update.

    Attributes:
        service: name of the service.
        generation: 1, 2, 3 …, new for every update.
        version: 1, 2, 3 …, new for every artifact.
        target: what is served: `path/model.py`, `path/file.py:function`, `module:function`.
        snapshot: folder with the code as it was when staged (see `artifacts.snapshot`), so that a
            worker restarted later runs this generation's code and not what was edited since.
        digest: sha256 over the snapshot's manifest.
        options: values for `setup(options)`, in JSON form.
        options_text: further ones as text, to be read by the type of each option.
        inherited: names of options that come from the generation before; one that the code no
            longer declares is dropped, where one asked for would be refused.
        port: fills `${port}` in the main file.
        model_path: handed to `InferenceService(model_path)` and the like.
        upload_dir: folder below which requests may name files; empty: they may name none.
        python: interpreter of this version's own environment; empty means the node's own.
    """

    service: str
    generation: int
    version: int
    target: str
    snapshot: str
    digest: str
    options: dict[str, Any] = {}
    options_text: dict[str, str] = {}
    inherited: tuple[str, ...] = ()
    port: int = 8080
    model_path: str = ""
    upload_dir: str = ""
    python: str = ""
    runenv: str = "prod"
    threads: int = 1
    load_timeout_s: float = 600.0
    max_body: int = 64 * 1024 * 1024


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a snapshot of code holds; the sha256 of its JSON is the snapshot's digest.

    Attributes:
        root: folder the files were taken from, as an absolute path; `__file__` names stay there.
        main: the served file, below `root`; empty for a module of an installed package.
        module: the name it is imported by; empty for a pickled notebook.
        name: the function or class of it that is served; empty to look for the obvious one.
        files: path below `root`, with `/`, → sha256 in hexadecimal.
    """

    root: str
    main: str
    module: str
    name: str = ""
    files: dict[str, str] = {}


#: The manifest's file name, beside the files it lists.
MANIFEST = "manifest.json"


class WorkerView(msgspec.Struct, frozen=True, kw_only=True):
    """One worker process as the node sees it now."""

    id: int
    generation: int
    state: State
    pid: int = 0
    error: str = ""
    restarts: int = 0
    load_s: float = 0.0


class GenerationWish(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted of one generation.

    Attributes:
        replicas: workers to have, those leaving not counted; of too many, the unready go first.
        routed: whether its ready workers receive requests. Routed with 0 replicas: its commands
            stay known and their requests wait for what comes next.
        restart: whether a worker that dies is replaced (a candidate's is not: it failed).
    """

    spec: GenerationSpec
    replicas: int
    routed: bool
    restart: bool


class Desired(msgspec.Struct, frozen=True, kw_only=True):
    """The whole wanted set of a service, never a difference; the rest is drained and stopped.

    While no routed worker is ready, requests wait in the gateway's queue up to their deadline.
    """

    service: str
    generations: tuple[GenerationWish, ...] = ()


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """What is there of a service.

    Attributes:
        workers: every worker process that has not been reaped.
        failures: why a generation wanted with `restart=False` failed (the first worker's reason),
            kept as long as that generation is wanted.
        routed: the generations the gateways' current, fully acknowledged table routes to
            (ids of workers, by generation). A generation not in here gets no new requests.
        settled: generations for which no gateway awaits an answer any more.
        degraded: why the service is below its wanted strength ("" when it is not).
        signatures: what each generation offers, as `sdk.contract.Signature.to_dict()`, with the
            options it was loaded with, in JSON form, as `optionValues`.
    """

    workers: tuple[WorkerView, ...] = ()
    failures: dict[int, str] = {}
    routed: dict[int, tuple[int, ...]] = {}
    settled: frozenset[int] = frozenset()
    degraded: str = ""
    signatures: dict[int, dict[str, Any]] = {}
