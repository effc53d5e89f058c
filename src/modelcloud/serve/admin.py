"""The addresses that the node answers itself in serve mode.

Must never: decide who may (that is `access`), how to update (`updates`, the reconciler) or what
a record holds (`status`); here requests meet them, and every answer gets its form.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeAlias

from msgspec.structs import replace

from modelcloud.config import ServeConfig
from modelcloud.dataplane.messages import AdminRequest, AdminResponse, AdminRoute, Stats
from modelcloud.errors import (
    MethodNotAllowed,
    ModelcloudError,
    NotFound,
    TooLarge,
)
from modelcloud.rollout.reconciler import Reconciler
from modelcloud.rollout.records import Rollout, RolloutState
from modelcloud.serve import access, status
from modelcloud.serve.access import Action
from modelcloud.serve.admin_forms import (
    content_answer,
    headers_of,
    json_answer,
    last_segment,
    matches,
    refusal,
    waits,
)
from modelcloud.serve.guesses import Guesses
from modelcloud.serve.setup_body import read_change
from modelcloud.serve.updates import Updates
from modelcloud.types import GenerationSpec, Observed

MAX_BODY = 1024 * 1024
#: Beyond every deadline of a rollout itself: its clearing, load, switch and way back.
WAIT_GRACE_S = 120.0


class Admin:
    """Answers them.

    Args:
        config: checked settings.
        observe: what the engine sees of the service.
        stats: the gateways' counters.
        worker_deaths: how many workers have ended unasked so far.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        config: ServeConfig,
        *,
        reconciler: Reconciler,
        updates: Updates,
        observe: Callable[[], Observed],
        stats: Callable[[], Awaitable[list[Stats]]],
        worker_deaths: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._reconciler = reconciler
        self._updates = updates
        self._observe = observe
        self._stats = stats
        self._worker_deaths = worker_deaths
        self._clock = clock
        self._started = clock()
        self._guesses = Guesses("wrong admin tokens", clock)
        self._outcomes: Counter[str] = Counter()
        reconciler.on_finished(self._count)
        self.stopping = False

    async def answer(self, request: AdminRequest) -> AdminResponse:
        """Answer one request; errors of this package become JSON answers."""
        try:
            return await self._admitted(request)(self, request)
        except ModelcloudError as error:
            return refusal(request, error)

    def _admitted(self, request: AdminRequest) -> Handler:
        here = [address for address in ADDRESSES if matches(address.path, request.path)]
        method = "GET" if request.method == "HEAD" else request.method
        address = next((address for address in here if address.method == method), None)
        facts = access.Facts(headers=headers_of(request), uid=request.uid)
        # A proxy hides who guesses: those who come through it share a limit, and do not lock out
        # those who come by themselves.
        client = f"{request.peer} {request.uid} {access.is_forwarded(facts)}"
        facts = replace(facts, guesses=self._guesses.count(client))
        refused = access.decide(
            address.action if address else Action.CHANGE,
            facts,
            access.Settings(
                host=self._config.host,
                uid=os.getuid() if self._config.uds else None,
                allowed_hosts=self._config.allowed_hosts,
                token=self._config.admin_token,
            ),
        )
        if isinstance(refused, access.WrongToken):
            self._guesses.add(client)
        if refused is not None:
            raise refused
        if not here:
            raise NotFound(f"nothing at {request.path}")
        if address is None:
            accepted = sorted(address.method for address in here)
            raise MethodNotAllowed(
                f"{request.method} does not apply to {request.path}", accepted=accepted
            )
        if len(request.body) > MAX_BODY:
            raise TooLarge(f"body: accepted here up to {MAX_BODY} bytes")
        return address.handler

    # ---- reading

    async def get_meta(self, request: AdminRequest) -> AdminResponse:
        """What serves."""
        return json_answer(request, 200, status.meta(self._facts(), await self._stats()))

    async def get_setup(self, request: AdminRequest) -> AdminResponse:
        """The options and their current values."""
        return json_answer(request, 200, status.setup(self._facts()))

    async def get_healthcheck(self, request: AdminRequest) -> AdminResponse:
        """The state in a word; 503 for those in which nothing is answered."""
        word = status.health(self._facts())
        return json_answer(
            request, 503 if word in {"INITIALIZING", "FAILED"} else 200, {"status": word}
        )

    async def get_readyz(self, request: AdminRequest) -> AdminResponse:
        """Whether predictions are answered, or why not."""
        ready, record = status.readiness(self._facts())
        return json_answer(request, 200 if ready else 503, record)

    async def get_metrics(self, request: AdminRequest) -> AdminResponse:
        """Prometheus text."""
        from modelcloud.serve import metrics_text

        serving = self._reconciler.serving
        body, content_type = metrics_text.render(
            metrics_text.Sources(
                service=self._config.service,
                gateways=await self._stats(),
                observed=self._observe(),
                generation=serving.generation if serving else 0,
                version=serving.version if serving else 0,
                worker_restarts=self._worker_deaths(),
                rollouts=self._outcomes,
            )
        )
        return AdminResponse(id=request.id, status=200, body=body, content_type=content_type)

    async def get_docs(self, request: AdminRequest) -> AdminResponse:
        """The OpenAPI document of what serves now."""
        from modelcloud.serve import openapi

        facts = self._facts()
        document = openapi.document(
            {"options": [], "optionsSchema": {}, "commands": [], **facts.signature},
            service=self._config.service,
            version=facts.serving.version if facts.serving else 0,
            token_needed=bool(self._config.admin_token),
        )
        return json_answer(request, 200, document)

    async def get_redoc(self, request: AdminRequest) -> AdminResponse:
        """The docs page."""
        from modelcloud.serve import page

        return content_answer(request, page.page())

    async def get_redoc_asset(self, request: AdminRequest) -> AdminResponse:
        """A file of the docs page."""
        from modelcloud.serve import page

        content = page.asset(last_segment(request))
        if content is None:
            raise NotFound(f"nothing at {request.path}")
        return content_answer(request, content)

    async def get_rollouts(self, request: AdminRequest) -> AdminResponse:
        """The rollouts so far, newest first."""
        rollouts = [rollout.to_dict() for rollout in self._reconciler.rollouts()]
        return json_answer(request, 200, {"rollouts": rollouts})

    async def get_rollout(self, request: AdminRequest) -> AdminResponse:
        """One of them."""
        rollout = self._reconciler.rollout(last_segment(request))
        return json_answer(request, 200, rollout.to_dict())

    # ---- changing

    async def post_setup(self, request: AdminRequest) -> AdminResponse:
        """Begin an update; answer when it is done, or at once with `?wait=false`."""
        wait, began = waits(request), self._clock()
        declared = [option["name"] for option in status.options(self._facts().signature)]
        rollout = await self._updates.begin(read_change(request.body, declared))
        if not wait:
            return _accepted(request, rollout)
        await self._reconciler.wait(rollout.id, longest_rollout_s(self._config))
        if error := rollout.error():
            raise error
        return self._done(request, rollout, rollout.target, began)

    async def post_rollback(self, request: AdminRequest) -> AdminResponse:
        """Go back to the generation before; likewise."""
        wait, began = waits(request), self._clock()
        rollout = self._reconciler.rollback()
        if not wait:
            return _accepted(request, rollout)
        await self._reconciler.wait(rollout.id, longest_rollout_s(self._config))
        serving = self._reconciler.serving
        if rollout.state is RolloutState.ROLLED_BACK and serving is not None:
            return self._done(request, rollout, serving, began)  # an update that was called off
        if error := rollout.error():
            raise error
        return self._done(request, rollout, rollout.target, began)

    def _done(
        self, request: AdminRequest, rollout: Rollout, serving: GenerationSpec, began: float
    ) -> AdminResponse:
        record = {
            "success": True,
            "generation": serving.generation,
            "version": serving.version,
            "rollout": rollout.id,
            "seconds": round(self._clock() - began, 3),
        }
        return json_answer(request, 200, record)

    def _facts(self) -> status.Facts:
        return status.Facts(
            service=self._config.service,
            replicas=self._config.replicas,
            observed=self._observe(),
            serving=self._reconciler.serving,
            updating=self._reconciler.snapshot().flight is not None,
            stopping=self.stopping,
            running_s=self._clock() - self._started,
        )

    def _count(self, rollout: Rollout) -> None:
        self._outcomes[rollout.state.value] += 1


Handler: TypeAlias = Callable[[Admin, AdminRequest], Awaitable[AdminResponse]]


class Address(NamedTuple):
    """One method of one path, who may use it, and what answers.

    `yields` says that a web application which is served keeps this path for itself.
    """

    path: str
    method: str
    action: Action
    handler: Handler
    yields: bool = False


#: All of them; `/*` stands for one further segment.
ADDRESSES = (
    Address("/", "GET", Action.READ, Admin.get_meta, yields=True),
    Address("/meta", "GET", Action.READ, Admin.get_meta),
    Address("/setup", "GET", Action.READ, Admin.get_setup),
    Address("/setup", "POST", Action.CHANGE, Admin.post_setup),
    Address("/healthcheck", "GET", Action.READ, Admin.get_healthcheck),
    Address("/readyz", "GET", Action.READ, Admin.get_readyz),
    Address("/metrics", "GET", Action.READ, Admin.get_metrics),
    Address("/docs.json", "GET", Action.READ, Admin.get_docs, yields=True),
    Address("/redoc", "GET", Action.READ, Admin.get_redoc, yields=True),
    Address("/redoc/*", "GET", Action.READ, Admin.get_redoc_asset, yields=True),
    # A rollout's log may hold what a model printed, so reading it is as guarded as a change.
    Address("/rollouts", "GET", Action.CHANGE, Admin.get_rollouts),
    Address("/rollouts/*", "GET", Action.CHANGE, Admin.get_rollout),
    Address("/rollback", "POST", Action.CHANGE, Admin.post_rollback),
)


def longest_rollout_s(config: ServeConfig) -> float:
    """For so long, in seconds, an answer to a change may take."""
    return 2 * (config.load_timeout_s + config.drain_s) + WAIT_GRACE_S


def admin_routes() -> tuple[AdminRoute, ...]:
    """The addresses as the gateways' route table has them."""
    methods: dict[str, list[str]] = {}
    for address in ADDRESSES:
        methods.setdefault(address.path, []).append(address.method)
    yielding = {address.path for address in ADDRESSES if address.yields}
    return tuple(
        AdminRoute(path=path, methods=tuple(of), yields=path in yielding)
        for path, of in methods.items()
    )


def _accepted(request: AdminRequest, rollout: Rollout) -> AdminResponse:
    record = {
        "rollout": rollout.id,
        "state": rollout.state.value,
        "generation": rollout.target.generation,
        "version": rollout.target.version,
    }
    return json_answer(request, 202, record)
