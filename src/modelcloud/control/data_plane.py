"""Answers what gateways forward of a service: its options, description, docs page, and updates.

The addresses are those of serve mode, below the service's name, or at the root of a port of its
own. Reading them is as public as the group's predictions.

Must never: let a change through without a token of somebody who may make it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import msgspec

from modelcloud.control.access import audit
from modelcloud.control.access.auth import Auth
from modelcloud.control.access.permissions import Action, Actor, Refused, allowed, require
from modelcloud.control.commands import ACCEPTED, Commands
from modelcloud.control.common.paging import Page
from modelcloud.control.common.peers import HEADER, Proxies
from modelcloud.control.deployments import rollouts
from modelcloud.control.deployments.deploying import Accepted
from modelcloud.control.deployments.deployment_forms import DeployBody, RollbackBody, UpdateBody
from modelcloud.control.deployments.rollouts import RolloutRecord
from modelcloud.control.reconcile.reconcilers import Reconcilers
from modelcloud.control.reconcile.standing import Standing
from modelcloud.control.service_subject import Subject, find_subject
from modelcloud.control.state import PlatformState
from modelcloud.dataplane.messages import AdminRequest, AdminResponse
from modelcloud.errors import (
    Forbidden,
    MethodNotAllowed,
    ModelcloudError,
    NotFound,
    NotReady,
    TooLarge,
    Unauthorized,
    UpdateFailed,
    UsageError,
)
from modelcloud.node.control import ADMIN_S
from modelcloud.rollout.decision import MARGIN_S
from modelcloud.rollout.records import RolloutState
from modelcloud.serve import status
from modelcloud.serve.admin import MAX_BODY, WAIT_GRACE_S
from modelcloud.serve.admin_forms import (
    content_answer,
    headers_of,
    json_answer,
    last_segment,
    matches,
    refusal,
    waits,
)
from modelcloud.serve.setup_body import read_change


class DataPlane:
    """Answers them.

    Args:
        auth: knows tokens.
    """

    def __init__(self, state: PlatformState, auth: Auth) -> None:
        self._state = state
        self._auth = auth
        self._proxies = Proxies(state.config.trusted_proxies)
        self._reconcilers = state.part(Reconcilers)

    async def answer(self, request: AdminRequest) -> AdminResponse:
        """Answer one request; errors of this package become JSON answers."""
        try:
            subject = await self._state.store.read(
                partial(find_subject, path=request.path, port=request.port)
            )
            path = request.path.removeprefix(subject.base) or "/"
            return await self._handler(request, path)(self, request, subject)
        except ModelcloudError as error:
            if isinstance(error, Refused):
                await audit.keep_refused(self._state.store, error)
            return refusal(request, error)

    @staticmethod
    def _handler(request: AdminRequest, path: str) -> Handler:
        here = [address for address in ADDRESSES if matches(address.path, path)]
        method = "GET" if request.method == "HEAD" else request.method
        for address in here:
            if address.method == method:
                if len(request.body) > MAX_BODY:
                    raise TooLarge(f"body: accepted here up to {MAX_BODY} bytes")
                return address.handler
        if not here:
            raise NotFound(f"nothing at {request.path}")
        raise MethodNotAllowed(
            f"{request.method} does not apply to {request.path}",
            accepted=sorted(address.method for address in here),
        )

    # ---- reading

    async def get_meta(self, request: AdminRequest, subject: Subject) -> AdminResponse:
        """What serves."""
        await self._reads(request, subject)
        return json_answer(request, 200, status.meta(self._facts(subject), ()))

    async def get_setup(self, request: AdminRequest, subject: Subject) -> AdminResponse:
        """The options and their current values."""
        await self._reads(request, subject)
        return json_answer(request, 200, status.setup(self._facts(subject)))

    async def get_healthcheck(self, request: AdminRequest, subject: Subject) -> AdminResponse:
        """The state in a word; 503 for those in which nothing is answered."""
        await self._reads(request, subject)
        word = status.health(self._facts(subject))
        code = 503 if word in {"INITIALIZING", "FAILED"} else 200
        return json_answer(request, code, {"status": word})

    async def get_readyz(self, request: AdminRequest, subject: Subject) -> AdminResponse:
        """Whether predictions are answered, or why not."""
        await self._reads(request, subject)
        ready, record = status.readiness(self._facts(subject))
        return json_answer(request, 200 if ready else 503, record)

    async def get_docs(self, request: AdminRequest, subject: Subject) -> AdminResponse:
        """The OpenAPI document of what serves now."""
        from modelcloud.serve import openapi

        await self._reads(request, subject)
        signature = self._facts(subject).signature
        document = openapi.document(
            {"options": [], "optionsSchema": {}, "commands": [], **signature},
            service=subject.service,
            version=subject.version,
            token_needed=True,
        )
        return json_answer(request, 200, _placed(document, signature, subject.base))

    async def get_redoc(self, request: AdminRequest, subject: Subject) -> AdminResponse:
        """The docs page."""
        from modelcloud.serve import page

        await self._reads(request, subject)
        return content_answer(request, page.page(subject.base))

    async def get_redoc_asset(self, request: AdminRequest, subject: Subject) -> AdminResponse:
        """A file of the docs page, the same for every service."""
        from modelcloud.serve import page

        content = page.asset(last_segment(request), subject.base)
        if content is None:
            raise NotFound(f"nothing at {request.path}")
        return content_answer(request, content)

    async def get_rollouts(self, request: AdminRequest, subject: Subject) -> AdminResponse:
        """The rollouts of the service, newest first."""
        actor = await self._may(request, subject, Action.READ)
        found = await self._state.store.read(
            partial(rollouts.listing, actor=actor, page=Page(), service=subject.service, state=None)
        )
        live = self._reconcilers.live.rollout
        records = [live(record).model_dump(mode="json") for record in found.items]
        return json_answer(request, 200, {"rollouts": records})

    async def get_rollout(self, request: AdminRequest, subject: Subject) -> AdminResponse:
        """One of them."""
        actor = await self._may(request, subject, Action.READ)
        name = last_segment(request)
        number = int(name) if name.isascii() and name.isdecimal() and len(name) < 10 else 0
        record = await self._state.store.read(
            partial(rollouts.find, actor=actor, rollout_id=number)
        )
        if record.service != subject.service:
            raise NotFound(f"no rollout {number}")
        record = self._reconcilers.live.rollout(record)
        return json_answer(request, 200, record.model_dump(mode="json"))

    # ---- changing

    async def post_setup(self, request: AdminRequest, subject: Subject) -> AdminResponse:
        """Begin an update; answer when it is done, or at once with `?wait=false`.

        `artifact` is the number of a registered version, which takes the place of the one online.
        """
        actor = await self._may(request, subject, Action.UPDATE)
        self._online(subject)
        wait, began = waits(request), self._state.clock()
        declared = [option["name"] for option in status.options(self._facts(subject).signature)]
        change = read_change(request.body, declared)
        if change.model_path:
            raise UsageError(
                "model_path: a version brings its own files; register another one and name it as "
                "`artifact`"
            )
        strategy = None if change.strategy is None else msgspec.to_builtins(change.strategy)
        commands = Commands(self._state, actor, subject.service)
        if change.artifact:
            asked = DeployBody(
                version=_registered(change.artifact),
                mode="replace",
                replaces=subject.version,
                options=change.options or None,
                strategy=strategy,
            )
            accepted = await commands.deploy(asked)
        else:
            asked_options = UpdateBody(options=change.options, strategy=strategy)
            accepted = await commands.update(subject.version, asked_options)
        return await self._outcome(request, subject, accepted, wait=wait, began=began)

    async def post_rollback(self, request: AdminRequest, subject: Subject) -> AdminResponse:
        """Go back to the generation before; likewise."""
        actor = await self._may(request, subject, Action.UPDATE)
        self._online(subject)
        wait, began = waits(request), self._state.clock()
        accepted = await Commands(self._state, actor, subject.service).roll_back(
            subject.version, RollbackBody()
        )
        return await self._outcome(request, subject, accepted, wait=wait, began=began, back=True)

    async def _outcome(
        self,
        request: AdminRequest,
        subject: Subject,
        accepted: Accepted,
        *,
        wait: bool,
        began: float,
        back: bool = False,
    ) -> AdminResponse:
        """What came of it; `back`: an update that went back is what was asked for."""
        begun = accepted.rollout
        if begun is not None and not begun.finished and not wait:
            return json_answer(request, ACCEPTED, {**_named(begun), "chosen": subject.chosen})
        if begun is not None:
            await self._ended(subject, begun, back=back)
        standing = self._reconcilers.standing(subject.key)
        serving = None if standing is None else standing.reconciler.serving
        if serving is None:
            raise NotReady("nothing serves now")
        record = {
            "success": True,
            "changed": accepted.changed,
            "generation": serving.generation,
            "version": serving.version,
            "rollout": None if begun is None else str(begun.id),
            "chosen": subject.chosen,
            "seconds": round(self._state.clock() - began, 3),
        }
        return json_answer(request, 200, record)

    async def _ended(self, subject: Subject, begun: RolloutRecord, *, back: bool) -> None:
        """Return once it ended as it was to.

        Raises:
            UpdateFailed, Superseded: it ended otherwise.
            DeadlineExceeded: it has not, and the node would not wait for the answer much longer.
        """
        if begun.state is RolloutState.FAILED:
            raise UpdateFailed(begun.reason, rollout=str(begun.id), step=begun.step.value)
        config = self._state.config
        longest_s = 2 * (config.load_timeout_s + config.env_timeout_s + config.drain_s)
        wait_s = min(longest_s + WAIT_GRACE_S, ADMIN_S - MARGIN_S)
        ended = await self._reconcilers.wait(subject.key, begun.id, wait_s)
        error = ended.error()
        if error is not None and not (back and ended.state is RolloutState.ROLLED_BACK):
            raise error

    # ---- inside

    async def _reads(self, request: AdminRequest, subject: Subject) -> None:
        """Return if who asks may read what the service is. Raises as `_may` does."""
        if not subject.public:
            await self._may(request, subject, Action.PREDICT)

    async def _may(self, request: AdminRequest, subject: Subject, action: Action) -> Actor:
        """Who asks.

        Raises:
            Unauthorized: no token came, or no valid one.
            NotFound: its user may not see the service at all, as the API says it.
            Forbidden: its user may not, or not before changing the password.
        """
        forwarded = headers_of(request).get(HEADER, ())
        peer = self._proxies.client(request.peer, forwarded)
        actor = await self._auth.actor(_bearer(request), peer)
        if actor.must_change_password:
            raise Forbidden("change your password first")
        # Who may predict knows of it already; anybody else not even what group it is in.
        if not allowed(actor, Action.PREDICT, subject.resource):
            raise NotFound(f"nothing at {request.path}")
        require(actor, action, subject.resource)
        return actor

    @staticmethod
    def _online(subject: Subject) -> None:
        if not subject.version:
            raise NotReady(f"no version of {subject.service!r} is online")

    def _facts(self, subject: Subject) -> status.Facts:
        standing: Standing | None = self._reconcilers.standing(subject.key)
        return status.Facts(
            service=subject.service,
            replicas=subject.replicas,
            observed=self._state.engine.observe(subject.key),
            serving=None if standing is None else standing.reconciler.serving,
            updating=standing is not None and standing.running is not None,
            stopping=False,
            running_s=max(0.0, self._state.wall() - subject.created_at),
        )


Handler: TypeAlias = Callable[[DataPlane, AdminRequest, Subject], Awaitable[AdminResponse]]


class Address(NamedTuple):
    """One method of one path below the service, and what answers; `/*` stands for one segment."""

    path: str
    method: str
    handler: Handler


#: Those at the root of a service's own port; gateways forward the first six below its name too.
ADDRESSES = (
    Address("/setup", "GET", DataPlane.get_setup),
    Address("/setup", "POST", DataPlane.post_setup),
    Address("/meta", "GET", DataPlane.get_meta),
    Address("/docs.json", "GET", DataPlane.get_docs),
    Address("/redoc", "GET", DataPlane.get_redoc),
    Address("/redoc/*", "GET", DataPlane.get_redoc_asset),
    Address("/", "GET", DataPlane.get_meta),
    Address("/healthcheck", "GET", DataPlane.get_healthcheck),
    Address("/readyz", "GET", DataPlane.get_readyz),
    Address("/rollouts", "GET", DataPlane.get_rollouts),
    Address("/rollouts/*", "GET", DataPlane.get_rollout),
    Address("/rollback", "POST", DataPlane.post_rollback),
)


def _bearer(request: AdminRequest) -> str:
    presented = headers_of(request).get("authorization", ())
    scheme, _, token = presented[0].partition(" ") if len(presented) == 1 else ("", "", "")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthorized("this needs a token, as `Authorization: Bearer TOKEN`")
    return token.strip()


def _registered(artifact: str) -> int:
    """The number of a registered version.

    Raises:
        UsageError: it is none.
    """
    if artifact.isascii() and artifact.isdecimal() and len(artifact) < 10:
        return int(artifact)
    raise UsageError(
        f"artifact: got {artifact[:80]!r}; accepted: the number of a registered version, as "
        '"2"; other code is a new version: register a version first'
    )


def _named(begun: RolloutRecord) -> dict[str, Any]:
    return {
        "rollout": str(begun.id),
        "state": begun.state.value,
        "generation": begun.target.generation,
        "version": begun.target.version,
    }


def _placed(document: dict[str, Any], signature: dict[str, Any], base: str) -> dict[str, Any]:
    """The document with the addresses that there are below `base`, and the platform's tokens."""
    scheme = document["components"]["securitySchemes"]["adminToken"]
    scheme["description"] = "A token of this platform whose user may change the service."
    served = {address.path.replace("/*", "/{id}") for address in ADDRESSES}
    if base:
        served = {"/setup", "/meta"}
    served |= {f"/{command['name']}" for command in signature.get("commands", ())}
    document["paths"] = {path: item for path, item in document["paths"].items() if path in served}
    document["servers"] = [{"url": base or "/"}]
    return document
