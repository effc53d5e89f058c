"""Where the pages of things are.

Must never: put a name into an address as it is.
"""

from __future__ import annotations

from urllib.parse import quote

OPEN_WORKSPACE = "/workspace/open"


def service(name: str, tab: str = "") -> str:
    """A service, or a part of its page."""
    return f"/services/{quote(name, safe='')}" + (f"/{tab}" if tab else "")


def version(service_name: str, number: int) -> str:
    """A version."""
    return f"{service(service_name)}/versions/{number}"


def monitor(service_name: str, name: str) -> str:
    """A monitor of a service."""
    return f"{service(service_name)}/monitors/{quote(name, safe='')}"


def rollout(number: int) -> str:
    """A rollout."""
    return f"/rollouts/{number}"


def group(name: str) -> str:
    """A group."""
    return f"/groups/{quote(name, safe='')}"


def services_of(group_name: str) -> str:
    """The services of a group."""
    return f"/services?group={quote(group_name, safe='')}"


def open_workspace(group_name: str) -> str:
    """Leads on into one's own workspace, which is elsewhere."""
    return f"{OPEN_WORKSPACE}?group={quote(group_name, safe='')}"
