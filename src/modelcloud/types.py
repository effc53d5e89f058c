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
    CANARY = "canary"


class CanaryStep(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Give the candidate `percent` of the requests and watch it for `watch_s` seconds."""

    percent: float
    watch_s: float = 60.0


class StrategySpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A strategy and its numbers.

    Attributes:
        max_surge: with `rolling`, workers above the wanted count.
        max_unavailable: with `rolling`, workers below it.
        steps: with `canary`, in order of percent; after the last one all requests follow.
        max_error_rate: with `canary`, the share of answers with a status of 500 or more above
            which it goes back, 0 to 1.
        max_p99_ms: with `canary`, the 99th percentile above which it goes back; 0: none.
        min_requests: with `canary`, answers in a step below which neither limit is judged.
    """

    name: Strategy = Strategy.BLUE_GREEN
    max_surge: int = 0
    max_unavailable: int = 1
    steps: tuple[CanaryStep, ...] = (
        CanaryStep(5), CanaryStep(25), CanaryStep(50), CanaryStep(100),
    )  # fmt: skip
    max_error_rate: float = 0.05
    max_p99_ms: float = 0.0
    min_requests: int = 20


class Resources(msgspec.Struct, frozen=True, kw_only=True):
    """What one replica may use; 0 leaves it unlimited (of `gpu`: it gets none).

    Attributes:
        cpu: processors; numerical libraries get that many threads, rounded up.
        memory: bytes, of the worker and what it started; beyond it the worker is replaced.
        gpu: devices; a fraction shares one.
    """

    cpu: float = 0.0
    memory: int = 0
    gpu: float = 0.0


class DispatchPolicy(str, Enum):
    """How a gateway chooses the worker of a request, of those that have credit."""

    LEAST_LOADED = "least_loaded"
    ROUND_ROBIN = "round_robin"
    RANDOM = "random"
    CONSISTENT_HASH = "consistent_hash"


class Dispatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A policy; `key` is for `consistent_hash`: `header:NAME` or `query:NAME`."""

    policy: DispatchPolicy = DispatchPolicy.LEAST_LOADED
    key: str = ""


#: The engine whose workers are processes of the node. A `GenerationSpec` calls it "".
LOCAL = "local"


class GenerationSpec(msgspec.Struct, frozen=True, kw_only=True):
    """All that a worker needs to become one replica of a generation.

    Two workers started from equal specs are the same generation; any difference is an update. Of
    one generation there are further specs where its workers took other options as they served.

    Attributes:
        service: name of the service.
        deployment: key of the deployment, unique on the node; in serve mode the service's name.
        generation: 1, 2, 3 …, new for every update of the service.
        revision: 0 with the options that the generation was begun with; else the number, out of
            the same sequence, under which its running workers were given these.
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
        requirements: text of a requirements file; the node builds an environment from it, with
            `python` as its base, before it starts a worker. Empty: no environment of its own.
        resources: what one replica may use.
        verify: every file of the snapshot is checked against the manifest before the first worker
            starts (an artifact of the store; in serve mode `take` has just done it).
        probe: import the code, say what it offers, and load no model.
        engine: where its workers run: "" for processes of the node, `ray` for a cluster.
    """

    service: str
    generation: int
    revision: int = 0
    deployment: str = ""
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
    requirements: str = ""
    resources: Resources = Resources()
    verify: bool = False
    probe: bool = False
    engine: str = ""
    runenv: str = "prod"
    threads: int = 1
    load_timeout_s: float = 600.0
    max_body: int = 64 * 1024 * 1024

    @property
    def number(self) -> int:
        """Under which it was begun: what is begun later has a greater one."""
        return max(self.generation, self.revision)


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a snapshot of code holds; the sha256 of its JSON is the snapshot's digest.

    Attributes:
        root: folder the files were taken from, as an absolute path; `__file__` names stay there.
            Empty for an artifact of the store, a model file or a folder taken whole, whose files
            are used where they are kept.
        main: the served file, below `root`; empty for a module of an installed package.
        module: the name it is imported by; empty for a pickled notebook and a model file.
        name: the function or class of it that is served; empty to look for the obvious one.
        runtime: of a model file without code, what loads it (see `runtimes.detect`); else empty.
        files: path below `root`, with `/`, → sha256 in hexadecimal.
    """

    root: str
    main: str
    module: str
    name: str = ""
    runtime: str = ""
    files: dict[str, str] = {}


#: The manifest's file name, beside the files it lists.
MANIFEST = "manifest.json"


class WorkerView(msgspec.Struct, frozen=True, kw_only=True):
    """One worker process as the node sees it now; `revision`: of the options that it has."""

    id: int
    generation: int
    revision: int = 0
    state: State
    pid: int = 0
    error: str = ""
    restarts: int = 0
    load_s: float = 0.0
    gpus: tuple[int, ...] = ()


class GenerationWish(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted of one generation.

    Attributes:
        spec: a running worker of this generation that has another revision of its options is given
            these between two requests, one after another; new ones start with them.
        replicas: workers to have, those leaving not counted; of too many, the unready go first.
        routed: whether its ready workers receive requests. Routed with 0 replicas: its commands
            stay known and their requests wait for what comes next.
        restart: whether a worker that dies is replaced (a candidate's is not: it failed). So is
            one that does not take its options.
        percent: of the deployment's requests that this generation gets, however many workers it
            has; None: generations without one share what is left, by their workers.
    """

    spec: GenerationSpec
    replicas: int
    routed: bool
    restart: bool
    percent: float | None = None


class Desired(msgspec.Struct, frozen=True, kw_only=True):
    """The whole wanted set of a deployment, never a difference; the rest is drained and stopped.

    While no routed worker is ready, requests wait in the gateway's queue up to their deadline.
    With no generation at all, the deployment is forgotten once its last worker is gone.
    """

    deployment: str
    generations: tuple[GenerationWish, ...] = ()
    dispatch: Dispatch = Dispatch()


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """What is there of a deployment.

    Attributes:
        workers: every worker process that has not been reaped.
        preparing: the generations whose files are being checked (`fetching`) or whose environment
            is being built (`building_env`) before their first worker is started.
        failures: why a generation wanted with `restart=False` failed, or did not take its options
            (the first worker's reason), kept as long as it is wanted like that.
        routed: the generations the gateways' current, fully acknowledged table routes to
            (ids of workers, by generation). A generation not in here gets no new requests.
        percents: of those, the ones that the acknowledged table gives a percentage of their own.
        settled: generations for which no gateway awaits an answer any more.
        degraded: why the deployment is below its wanted strength ("" when it is not).
        signatures: what each generation offers, as `sdk.contract.Signature.to_dict()`, with the
            options it has, in JSON form, as `optionValues`.
    """

    workers: tuple[WorkerView, ...] = ()
    preparing: dict[int, State] = {}
    failures: dict[int, str] = {}
    routed: dict[int, tuple[int, ...]] = {}
    percents: dict[int, float] = {}
    settled: frozenset[int] = frozenset()
    degraded: str = ""
    signatures: dict[int, dict[str, Any]] = {}


class Sticky(msgspec.Struct, frozen=True):
    """What keeps a client at one version: `kind` is `header`, `cookie` or `body` (a JSON key)."""

    kind: str
    name: str


class DeploymentRoute(msgspec.Struct, frozen=True, kw_only=True):
    """How one deployment of a service is reached.

    Attributes:
        versions: numbers at which `/predict/<service>/<number>` leads here.
        labels: likewise, by name.
        weight: share of the requests that name no version, beside the others' weights.
        shadow: of the requests that other deployments of the service answer, the share (0 to 1)
            that is copied here, its answers thrown away.
        commands: what it offers, as the commands of `Signature.to_dict()`, as far as that is known
            without its workers: until one says so itself, requests for these wait for it.
    """

    deployment: str
    versions: tuple[int, ...] = ()
    labels: tuple[str, ...] = ()
    weight: float = 1.0
    shadow: float = 0.0
    commands: tuple[dict[str, Any], ...] = ()


class RouteAddress(msgspec.Struct, frozen=True, kw_only=True):
    """An address that someone chose for a service's prediction, beside those by its name.

    Attributes:
        path: as it stands in a URL, with the leading slash.
        methods: those that it answers.
        port: where it is; 0: the gateway's own. Several services may have routes at one port.
    """

    path: str
    methods: tuple[str, ...] = ("GET", "POST")
    port: int = 0


class ServiceRouting(msgspec.Struct, frozen=True, kw_only=True):
    """How a service is reached.

    Attributes:
        at_root: its commands are also `/<command>`, as in serve mode.
        port: it also has a port of its own, where it sits at the root; 0: none.
        tokens: sha256 of the tokens that may predict, in hexadecimal; None: anyone may.
        route: a further address, of its prediction alone.
    """

    service: str
    deployments: tuple[DeploymentRoute, ...] = ()
    sticky: Sticky | None = None
    at_root: bool = False
    port: int = 0
    tokens: tuple[str, ...] | None = None
    route: RouteAddress | None = None


class Routing(msgspec.Struct, frozen=True, kw_only=True):
    """How every service of a node is reached; replaced as a whole."""

    services: tuple[ServiceRouting, ...] = ()
