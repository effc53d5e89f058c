"""The windows in which a version is brought online, changed, scaled, stopped.

Must never: begin anything but by the functions that answer the API.
"""

from __future__ import annotations

from typing import Any

from modelcloud.control.api import deployments, instance_types, versions
from modelcloud.control.common.paging import MAX_LIMIT, Page
from modelcloud.control.deployments.deploying import Accepted
from modelcloud.control.deployments.deployment_forms import (
    DeployBody,
    RollbackBody,
    ScaleBody,
    UpdateBody,
)
from modelcloud.control.deployments.deployment_states import Status, Wanted
from modelcloud.control.deployments.deployments import DeploymentRecord
from modelcloud.dashboard import addresses
from modelcloud.dashboard.markup import element
from modelcloud.dashboard.parts.deploy_form import deploy_fields, dispatch_from
from modelcloud.dashboard.parts.forms import OPTION, Field, Form
from modelcloud.dashboard.parts.signature import fields_of, values_of
from modelcloud.dashboard.parts.strategy_fields import strategies, strategy_from
from modelcloud.dashboard.view import Act, View
from modelcloud.errors import InvalidInput


class Deploying(View):
    """The windows. The page reads `deployments`."""

    deployments: list[DeploymentRecord]
    _options: list[Field]

    @property
    def name(self) -> str:
        """The service's."""
        return self.place["service"]

    # ---- deploy

    async def do_deploy(self, act: Act) -> None:
        """A form to bring a version online."""
        await self._deploy_form({"version": act.get("version")})

    async def do_redo(self, act: Act) -> None:
        """The form again: other fields matter now."""
        if self.form is None:
            return
        if act.get("name") == "mode":  # all else is that of what is replaced
            kept = ("version", "mode")
            await self._deploy_form({name: act.fields.get(name) for name in kept})
        elif act.get("name") in {"version", "strategy", "dispatch"}:
            await self._deploy_form(act.fields)

    async def _deploy_form(self, given: Any) -> None:
        t = self.t
        listed = (
            await self.asks.call(versions.list_versions, service=self.name, page=Page(100))
        ).items
        enabled = [one for one in listed if one.enabled]
        types = (
            await self.asks.call(instance_types.list_instance_types, page=Page(MAX_LIMIT))
        ).items
        wanted = str(given.get("version") or (enabled[0].version if enabled else ""))
        version = await self.asks.call(
            versions.get_version,
            service=self.name,
            version=int(wanted) if wanted.isdecimal() else 0,
        )
        serving = [one for one in self.deployments if one.status is Status.SERVING]
        mode = str(given.get("mode") or "new")
        replaced = next((one for one in serving if str(one.version) == mode), None)
        options = {**version.options, **(replaced.options if replaced else {})}
        self._options = fields_of(t, version.signature.get("options", []), options, prefix=OPTION)
        fields = [
            *deploy_fields(t, {**given, "version": wanted}, enabled, types, serving, replaced),
            *self._options,
        ]
        self.open(
            Form(
                "deploy_now",
                t("Deploy {name}", name=self.name),
                t("Replace version {version}", version=mode) if replaced else t("Deploy"),
                fields,
                change="redo",
            )
        )

    async def do_deploy_now(self, act: Act) -> None:
        """Begin."""
        assert self.form is not None
        values = self.form.values(act.fields)
        mode = values.pop("mode")
        strategy = values.pop("strategy", None)
        spec = strategy_from(strategy, values)
        options = values_of(self._options, values, OPTION)
        body = DeployBody(
            version=int(values.pop("version")),
            mode="new" if mode == "new" else "replace",
            replaces=None if mode == "new" else int(mode),
            options=options,
            strategy=spec,
            dispatch=dispatch_from(values),
            **{name: value for name, value in values.items() if name in DeployBody.model_fields},
        )
        await self._begun(await self.asks.call(deployments.deploy, service=self.name, body=body))

    # ---- change

    async def do_change(self, act: Act) -> None:
        """A form for the options of what is online."""
        t, one = self.t, self._deployment(act)
        version = await self.asks.call(versions.get_version, service=self.name, version=one.version)
        self._options = fields_of(
            t,
            version.signature.get("options", []),
            {**version.options, **one.options},
            prefix=OPTION,
        )
        strategy = Field(
            name="strategy",
            label=t("Strategy"),
            kind="select",
            value=one.strategy["name"],
            choices=strategies(t),
            wide=True,
        )
        note = (
            None
            if self._options
            else element("p", t("It takes no options; a change starts it anew with the same."))
        )
        self.open(
            Form(
                "change_now",
                t("Change the options of version {version}", version=one.version),
                t("Update"),
                [*self._options, strategy],
                args={"version": str(one.version)},
                above=note,
            )
        )

    async def do_change_now(self, act: Act) -> None:
        """Begin."""
        assert self.form is not None
        values = self.form.values(act.fields)
        body = UpdateBody(
            options=values_of(self._options, values, OPTION), strategy=values.get("strategy")
        )
        accepted = await self.asks.call(
            deployments.update, service=self.name, version=act.number("version"), body=body
        )
        if not accepted.changed:
            self.done(self.t("Everything is as asked for already"))
            return
        await self._begun(accepted)

    async def do_scale(self, act: Act) -> None:
        """A form for the number of replicas."""
        t, one = self.t, self._deployment(act)
        self.open(
            Form(
                "scale_now",
                t("Replicas of version {version}", version=one.version),
                t("Scale"),
                [
                    Field(
                        name="replicas",
                        label=t("Replicas"),
                        kind="integer",
                        value=one.replicas,
                        focus=True,
                        wide=True,
                    ),
                ],
                args={"version": str(one.version)},
            )
        )

    async def do_scale_now(self, act: Act) -> None:
        """Have so many."""
        assert self.form is not None
        body = ScaleBody(**self.form.values(act.fields))
        await self.asks.call(
            deployments.scale, service=self.name, version=act.number("version"), body=body
        )
        self.done(self.t("It has {count} replicas soon", count=body.replicas))

    async def do_redeploy(self, act: Act) -> None:
        """Start its workers anew."""
        await self._begun(
            await self.asks.call(
                deployments.redeploy, service=self.name, version=act.number("version")
            )
        )

    async def do_start(self, act: Act) -> None:
        """Bring it online again."""
        await self._begun(
            await self.asks.call(
                deployments.start, service=self.name, version=act.number("version")
            )
        )

    async def do_roll_back(self, act: Act) -> None:
        """Go back."""
        await self._begun(
            await self.asks.call(
                deployments.roll_back,
                service=self.name,
                version=act.number("version"),
                body=RollbackBody(),
            )
        )

    async def do_stop(self, act: Act) -> None:
        """Ask first."""
        t = self.t
        self._ask_first(
            act,
            "stop_now",
            t("Stop version {version}?", version=act.get("version")),
            t("Stop"),
            t("It answers what it has received and goes offline. It can be started again."),
        )

    async def do_stop_now(self, act: Act) -> None:
        """Take it offline."""
        await self.asks.call(deployments.stop, service=self.name, version=act.number("version"))
        self.done(self.t("Version {version} goes offline", version=act.get("version")))

    async def do_remove(self, act: Act) -> None:
        """Ask first."""
        t = self.t
        self._ask_first(
            act,
            "remove_now",
            t("Take version {version} offline for good?", version=act.get("version")),
            t("Take offline"),
            t("Its deployment is gone then; the version stays registered."),
        )

    async def do_remove_now(self, act: Act) -> None:
        """Take it offline for good."""
        await self.asks.call(
            deployments.delete_deployment, service=self.name, version=act.number("version")
        )
        self.done(self.t("Version {version} is no longer deployed", version=act.get("version")))

    # ---- inside

    def _ask_first(self, act: Act, do: str, title: str, submit: str, text: str) -> None:
        form = Form(do, title, submit, [], args={"version": act.get("version")}, danger=True)
        form.above = element("p", text)
        self.open(form)

    def _deployment(self, act: Act) -> DeploymentRecord:
        wanted = act.number("version")
        found = [one for one in self.deployments if one.version == wanted]
        if not found:
            raise InvalidInput("version", str(wanted), "one that is deployed")
        return max(found, key=lambda one: (one.wanted is Wanted.ONLINE, one.id))

    async def _begun(self, accepted: Accepted) -> None:
        """Show what was begun."""
        self.form = None
        if accepted.rollout is not None:
            await self.tab.go(addresses.rollout(accepted.rollout.id))
