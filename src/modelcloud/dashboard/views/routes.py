"""Which page stands at which address.

Must never: make a page of an address that is not listed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote

from modelcloud.dashboard.views.audit import Audit
from modelcloud.dashboard.views.ending import Ending
from modelcloud.dashboard.views.groups import Group, Groups
from modelcloud.dashboard.views.history import ServiceHistory
from modelcloud.dashboard.views.instance_types import InstanceTypes
from modelcloud.dashboard.views.logs import Logs
from modelcloud.dashboard.views.measures import Measures
from modelcloud.dashboard.views.monitor import MonitorPage
from modelcloud.dashboard.views.monitor_form import EditMonitor, NewMonitor
from modelcloud.dashboard.views.monitors import Monitors, ServiceMonitors
from modelcloud.dashboard.views.node import Node
from modelcloud.dashboard.views.overview import Overview
from modelcloud.dashboard.views.register import Register
from modelcloud.dashboard.views.rollout import RolloutPage
from modelcloud.dashboard.views.service import Information
from modelcloud.dashboard.views.services import Services
from modelcloud.dashboard.views.settings import Settings
from modelcloud.dashboard.views.tokens import Tokens
from modelcloud.dashboard.views.traffic import Traffic
from modelcloud.dashboard.views.trying import TryIt
from modelcloud.dashboard.views.users import Users
from modelcloud.dashboard.views.version import VersionPage
from modelcloud.dashboard.views.workspace import WorkspacePage
from modelcloud.errors import NotFound

if TYPE_CHECKING:
    from modelcloud.dashboard.tab import Tab
    from modelcloud.dashboard.view import View

_NAME = r"(?P<{}>[^/]+)"
ROUTES: dict[str, type[View]] = {
    "/": Overview,
    "/services": Services,
    "/register": Register,
    "/services/{service}": Information,
    "/services/{service}/try": TryIt,
    "/services/{service}/history": ServiceHistory,
    "/services/{service}/traffic": Traffic,
    "/services/{service}/logs": Logs,
    "/services/{service}/metrics": Measures,
    "/services/{service}/monitors": ServiceMonitors,
    "/services/{service}/new-monitor": NewMonitor,
    "/services/{service}/monitors/{monitor}": MonitorPage,
    "/services/{service}/monitors/{monitor}/edit": EditMonitor,
    "/services/{service}/edit": Settings,
    "/services/{service}/delete": Ending,
    "/services/{service}/versions/{version}": VersionPage,
    "/rollouts/{rollout}": RolloutPage,
    "/monitors": Monitors,
    "/workspace": WorkspacePage,
    "/groups": Groups,
    "/groups/{group}": Group,
    "/tokens": Tokens,
    "/users": Users,
    "/instance-types": InstanceTypes,
    "/node": Node,
    "/audit": Audit,
}
_PATTERNS = [
    (re.compile(re.sub(r"\{(\w+)\}", lambda found: _NAME.format(found[1]), path)), view)
    for path, view in ROUTES.items()
]


def view_at(tab: Tab, path: str, query: str) -> View:
    """The view of an address.

    Raises:
        NotFound: there is none.
    """
    path = path.rstrip("/") or "/"
    for pattern, view in _PATTERNS:
        found = pattern.fullmatch(path)
        if found:
            place = {name: unquote(value) for name, value in found.groupdict().items()}
            return view(tab, place, dict(parse_qsl(query, max_num_fields=20)))
    raise NotFound(tab.words("There is no such page."))
