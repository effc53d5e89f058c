"""Workspaces: a JupyterLab of one's own in a folder of the group.

Must never: run a notebook; the platform does, in a process of its own.
"""

from __future__ import annotations

from modelcloud.platform.connection import Connection, Record, given, part

#: For a lab to start; the platform gives up before by itself.
START_S = 180.0


class Workspaces:
    """Workspaces."""

    _api: Connection

    def workspaces(self) -> list[Record]:
        """One's own, and those in the groups that one manages."""
        return self._api.whole("/workspaces")

    def start_workspace(self, group: str) -> Record:
        """Start one's own in a group; returns once it is there. One that runs stays as it is.

        Raises:
            Conflict: one's own runs in another group, or the platform has no workspaces.
        """
        return self._api.record("POST", f"/workspaces/{part(group)}", timeout=START_S)

    def open_workspace(self, group: str) -> Record:
        """Where a browser gets into one's own, once, within a minute: `url`."""
        return self._api.record("POST", f"/workspaces/{part(group)}/open")

    def stop_workspace(self, group: str, user: str | None = None) -> None:
        """Stop one's own, or somebody else's; the group's files stay."""
        self._api.send("DELETE", f"/workspaces/{part(group)}", query=given({"user": user}))

    def workspace_folders(self, group: str) -> list[Record]:
        """What in the group's folder can be registered: `folder` is what `register` takes."""
        return self._api.whole(f"/workspaces/{part(group)}/folders")
