"""The node and who uses it; quotas of groups, which administrators set."""

from __future__ import annotations

from modelcloud.control.access.permissions import Action, allowed
from modelcloud.control.api import groups, node
from modelcloud.control.api.groups import NewQuota
from modelcloud.control.resources.quotas import GroupUses
from modelcloud.dashboard import addresses
from modelcloud.dashboard.markup import Child, Markup, element, join
from modelcloud.dashboard.parts.basic import button, heading, link, meter, panel, row, size, table
from modelcloud.dashboard.parts.forms import Field, Form
from modelcloud.dashboard.view import Act, View
from modelcloud.errors import InvalidInput

_MIB = 1 << 20


class Node(View):
    """The machine."""

    section = "node"

    @property
    def title(self) -> str:
        """What the page is called."""
        return self.t("Node and quotas")

    async def read(self) -> None:
        """The node."""
        self.node = await self.asks.call(node.get_node)

    def draw(self) -> Markup:
        """The page."""
        t, whole, used = self.t, self.node.capacity, self.node.in_use
        meters: list[Child] = [
            meter(t("Processors"), used.cpu, whole.cpu, f"{used.cpu:g} / {whole.cpu:g}"),
            meter(
                t("Memory"),
                used.memory,
                whole.memory,
                f"{size(used.memory)} / {size(whole.memory)}",
            ),
            meter("GPU", used.gpu, whole.gpu, f"{used.gpu:g} / {whole.gpu:g}"),
            meter(t("Replicas"), used.replicas, 0, str(used.replicas)),
        ]
        rows = [self._row(one) for one in self.node.groups]
        heads = [t("Group"), t("Processors"), t("Memory"), "GPU", t("Replicas"), ""]
        note = t("Predictions are taken at {host}:{port}", host=self.node.host, port=self.node.port)
        return join(
            heading(self.title, note=note),
            panel(t("The node"), *meters),
            panel(t("Groups: in use, of their quota"), table(t("Groups"), heads, rows)),
        )

    def _row(self, one: GroupUses) -> Markup:
        t, used, quota = self.t, one.in_use, one.quota
        edit: Child = None
        if allowed(self.tab.actor, Action.MANAGE_QUOTAS):
            edit = element(
                "div",
                button(
                    t("Quota"),
                    "quota",
                    kind="quiet",
                    small=True,
                    data_group=one.group,
                    aria_label=f"{t('Quota')}: {one.group}",
                ),
                class_="actions",
            )
        memory = "" if quota.memory is None else f" / {size(quota.memory)}"
        return row(
            link(one.group, addresses.group(one.group)),
            _of(used.cpu, quota.cpu),
            f"{size(used.memory)}{memory}",
            _of(used.gpu, quota.gpu),
            _of(used.replicas, quota.replicas),
            edit,
            key=f"uses-{one.group}",
        )

    async def do_quota(self, act: Act) -> None:
        """A form for a group's quota."""
        t = self.t
        name = act.get("group")
        group = await self.asks.call(groups.get_group, group=name)
        quota = group.quota
        memory = None if quota.memory is None else quota.memory / _MIB
        none = t("Left empty: no limit")
        self.open(
            Form(
                "set_quota",
                t("Quota of {name}", name=name),
                t("Save"),
                [
                    Field(
                        name="cpu",
                        label=t("Processors"),
                        kind="number",
                        value=quota.cpu,
                        optional=True,
                        help=none,
                        focus=True,
                    ),
                    Field(
                        name="memory",
                        label=t("Memory in MiB"),
                        kind="number",
                        value=memory,
                        optional=True,
                        help=none,
                    ),
                    Field(
                        name="gpu",
                        label="GPU",
                        kind="number",
                        value=quota.gpu,
                        optional=True,
                        help=none,
                    ),
                    Field(
                        name="replicas",
                        label=t("Replicas"),
                        kind="integer",
                        value=quota.replicas,
                        optional=True,
                        help=none,
                    ),
                ],
                args={"group": name, "revision": str(group.revision)},
            )
        )

    async def do_set_quota(self, act: Act) -> None:
        """Set it."""
        assert self.form is not None
        values = self.form.values(act.fields)
        if values.get("memory", 0) > 2**40:
            raise InvalidInput("memory", str(values["memory"]), "less")
        if "memory" in values:
            values["memory"] = int(values["memory"] * _MIB)
        await self.asks.call(
            groups.set_quota,
            on=act.number("revision"),
            group=act.get("group"),
            body=NewQuota(**values),
        )
        self.done(self.t("Saved"))


def _of(used: float, limit: float | None) -> str:
    return f"{used:g}" if limit is None else f"{used:g} / {limit:g}"
