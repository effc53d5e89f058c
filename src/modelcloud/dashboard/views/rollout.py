"""A rollout, live: each worker a cell that goes from old to new; steps, log, the way back."""

from __future__ import annotations

from modelcloud.control.access.permissions import Action
from modelcloud.control.api import deployments, groups, rollouts, services
from modelcloud.control.deployments.deployment_forms import RollbackBody
from modelcloud.control.deployments.rollouts import WorkerStandingRecord
from modelcloud.dashboard import addresses
from modelcloud.dashboard.markup import Child, Markup, element, join
from modelcloud.dashboard.parts.basic import alert, badge, button, facts, heading, link, panel, when
from modelcloud.dashboard.parts.history import change_of, duration, took
from modelcloud.dashboard.rights import Rights
from modelcloud.dashboard.view import Act, View
from modelcloud.errors import NotFound
from modelcloud.rollout.records import RolloutState
from modelcloud.types import State

#: What a new generation goes through, in order.
_STEPS = (
    State.PENDING,
    State.FETCHING,
    State.BUILDING_ENV,
    State.LOADING,
    State.WARMING,
    State.CHECKING,
    State.SERVING,
)
_ENDED_BADLY = {RolloutState.FAILED, RolloutState.ROLLED_BACK, RolloutState.SUPERSEDED}
_LEAVING = {State.DRAINING, State.STOPPED}


class RolloutPage(View):
    """One of them."""

    section = "services"
    every_s = 2.0

    @property
    def title(self) -> str:
        """What the page is called."""
        return self.t("Rollout #{id}", id=self.place["rollout"])

    async def read(self) -> None:
        """The rollout, and what may be done about it."""
        text = self.place["rollout"]
        if not (text.isascii() and text.isdecimal() and len(text) < 10):
            raise NotFound(self.t("There is no such page."))
        self.rollout = await self.asks.call(rollouts.get_rollout, rollout=int(text))
        service = await self.asks.call(services.get_service, service=self.rollout.service)
        group = await self.asks.call(groups.get_group, group=service.group)
        self.rights = Rights(self.tab.actor, group.level)
        listed = await self.asks.call(deployments.list_deployments, service=service.name)
        self.deployment = next(
            (one for one in listed.items if one.id == self.rollout.deployment), None
        )

    def draw(self) -> Markup:
        """The page."""
        t, rollout = self.t, self.rollout
        name = rollout.service
        crumbs = [
            (t("Services"), "/services"),
            (name, addresses.service(name)),
            (t("History"), addresses.service(name, "history")),
        ]
        ended_badly = rollout.state in _ENDED_BADLY
        return join(
            heading(
                self.title,
                badge(t, rollout.state.value),
                self._back(),
                note=join(name, ": ", change_of(t, rollout)),
                crumbs=crumbs,
            ),
            alert(rollout.reason, tone="bad" if ended_badly else "warn")
            if rollout.reason
            else None,
            panel(t("Steps"), self._steps(), self._progress(), self._cells()),
            element("div", self._log(), self._about(), class_="grid thirds"),
        )

    def _back(self) -> Child:
        """Offered while it is on its way, and after it for as long as it is the newest one."""
        one, rollout = self.deployment, self.rollout
        if one is None or not self.rights.may(Action.UPDATE) or one.rollout is None:
            return None
        newest = one.rollout.id == rollout.id
        goes_back = not rollout.finished and rollout.source is not None
        went = rollout.state is RolloutState.SUCCEEDED and one.previous is not None
        if not newest or not (goes_back or went):
            return None
        return button(
            self.t("Roll back"), "roll_back", symbol="back", kind="danger" if goes_back else ""
        )

    def _steps(self) -> Markup:
        t, rollout = self.t, self.rollout
        at = _STEPS.index(rollout.step) if rollout.step in _STEPS else len(_STEPS) - 1
        done = rollout.state is RolloutState.SUCCEEDED
        marks = []
        for place, step in enumerate(_STEPS):
            mark = "past" if done or place < at else ""
            if place == at and not done:
                mark = "stuck" if rollout.state in _ENDED_BADLY else "now"
            current = "step" if mark == "now" else None
            marks.append(
                element(
                    "li",
                    t(step.value.replace("_", " ")),
                    data_is=mark or None,
                    aria_current=current,
                )
            )
        return element("ol", *marks, class_="steps")

    def _progress(self) -> Markup:
        percent = self.rollout.percent
        return element(
            "div",
            element("i", style=f"width:{percent}%"),
            class_="progress",
            role="progressbar",
            aria_label=self.t("Progress of the rollout"),
            aria_valuemin="0",
            aria_valuemax="100",
            aria_valuenow=percent,
        )

    def _cells(self) -> Markup:
        t, rollout = self.t, self.rollout
        workers = sorted(rollout.workers, key=lambda worker: worker.id)
        if not workers:
            text = (
                t("What its workers did is in the deployment log.")
                if rollout.finished
                else t("No worker has been started yet.")
            )
            return element("p", text, class_="none")
        new = rollout.target.generation
        legend = [
            t(
                "new: generation {generation}, version {version}",
                generation=new,
                version=rollout.target.version,
            )
        ]
        if rollout.source is not None and not rollout.reconfigures:
            old = rollout.source
            legend.insert(
                0,
                t(
                    "old: generation {generation}, version {version}",
                    generation=old.generation,
                    version=old.version,
                ),
            )
        return join(
            element(
                "ul",
                *(self._cell(worker) for worker in workers),
                class_="cells",
                aria_label=t("Workers"),
            ),
            element("div", *(element("span", text) for text in legend), class_="legend"),
        )

    def _cell(self, worker: WorkerStandingRecord) -> Markup:
        t = self.t
        is_new = worker.generation == self.rollout.target.generation
        classes = ["cell", "new" if is_new else "old", worker.state.value]
        if worker.state in _LEAVING:
            classes.append("leaving")
        return element(
            "li",
            element("strong", t("worker {id}", id=worker.id)),
            element("span", t("version {version}", version=worker.version)),
            element("span", t(worker.state.value.replace("_", " "))),
            class_=" ".join(classes),
            data_key=f"worker-{worker.id}",
        )

    def _log(self) -> Markup:
        t = self.t
        lines = [element("li", line) for line in self.rollout.log]
        content: Child = element(
            "ol", *lines, class_="lines low", tabindex="0", aria_label=t("Log")
        )
        if not lines:
            to = addresses.service(self.rollout.service, "logs")
            content = element("p", link(t("The deployment log has all of it."), to), class_="none")
        return panel(t("Log"), content)

    def _about(self) -> Markup:
        t, rollout = self.t, self.rollout
        strategy = rollout.strategy.get("name", "")
        return panel(
            t("About"),
            facts(
                [
                    (t("Service"), link(rollout.service, addresses.service(rollout.service))),
                    (
                        t("Version"),
                        link(
                            str(rollout.target.version),
                            addresses.version(rollout.service, rollout.target.version),
                        ),
                    ),
                    (t("Kind"), t(rollout.kind.value)),
                    (t("Strategy"), str(strategy)),
                    (t("By"), rollout.actor),
                    (t("Asked for"), when(rollout.accepted_at, as_="date")),
                    (t("Took"), duration(took(rollout))),
                ]
            ),
        )

    async def do_roll_back(self, _: Act) -> None:
        """Go back."""
        assert self.deployment is not None
        accepted = await self.asks.call(
            deployments.roll_back,
            service=self.rollout.service,
            version=self.deployment.version,
            body=RollbackBody(),
        )
        if accepted.rollout is not None and accepted.rollout.id != self.rollout.id:
            await self.tab.go(addresses.rollout(accepted.rollout.id))
        else:
            self.done(self.t("It goes back"))
