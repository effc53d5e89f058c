"""Who one is on a platform, who else there is, and what they may use.

Must never: keep a password.
"""

from __future__ import annotations

from typing import Any

from modelcloud.platform.connection import Connection, Record, part


class People:
    """Session, users, tokens, groups, instance types, the node and the audit log."""

    _api: Connection

    def sign_in(self, user: str, password: str) -> Record:
        """Sign in; later calls are this user's. The answer holds the token."""
        answer = self._api.record("POST", "/session", {"user": user, "password": password})
        self.token = answer["token"]
        return answer

    def sign_out(self) -> None:
        """End the session; its token is worth nothing from now on."""
        self._api.send("DELETE", "/session")
        self.token = None

    def whoami(self) -> Record:
        """The user, what the token opens of it, and the level in each group."""
        return self._api.record("GET", "/session")

    def change_password(self, current: str, new: str) -> None:
        """Change one's own password; one's other sessions end."""
        self._api.send("PUT", "/session/password", {"current": current, "new": new})

    def users(self) -> list[Record]:
        """All users."""
        return list(self._api.items("/users"))

    def user(self, name: str) -> Record:
        """One of them."""
        return self._api.record("GET", f"/users/{part(name)}")

    def create_user(
        self,
        name: str,
        password: str,
        *,
        is_admin: bool = False,
        must_change_password: bool = False,
    ) -> Record:
        """Make a user, and a group of the same name that is theirs."""
        body = {
            "name": name,
            "password": password,
            "is_admin": is_admin,
            "must_change_password": must_change_password,
        }
        return self._api.record("POST", "/users", body)

    def edit_user(self, name: str, *, revision: int | None = None, **changes: Any) -> Record:
        """Change `is_admin`, `disabled`, `password` or `must_change_password` of a user."""
        return self._api.record("PATCH", f"/users/{part(name)}", changes, revision=revision)

    def delete_user(self, name: str, *, revision: int | None = None) -> None:
        """Remove a user, whose tokens are worth nothing from now on."""
        self._api.send("DELETE", f"/users/{part(name)}", revision=revision)

    def tokens(self, user: str | None = None) -> list[Record]:
        """One's own tokens and sessions, without their secrets; an administrator names `user`."""
        return list(self._api.items("/tokens", {"user": user}))

    def create_token(
        self,
        name: str,
        level: str,
        group: str | None = None,
        expires_in_s: float | None = None,
    ) -> Record:
        """Make a token for a group (None: all of one's groups); `token` is told this once."""
        body = {"name": name, "level": level, "group": group, "expires_in_s": expires_in_s}
        return self._api.record("POST", "/tokens", body)

    def revoke_token(self, token_id: int) -> None:
        """Make a token or a session worthless at once."""
        self._api.send("DELETE", f"/tokens/{token_id}")

    def groups(self) -> list[Record]:
        """The groups one may see."""
        return list(self._api.items("/groups"))

    def group(self, name: str) -> Record:
        """One of them, with its quota."""
        return self._api.record("GET", f"/groups/{part(name)}")

    def create_group(self, name: str, description: str = "") -> Record:
        """Make a group that one manages."""
        return self._api.record("POST", "/groups", {"name": name, "description": description})

    def edit_group(self, name: str, *, revision: int | None = None, **changes: Any) -> Record:
        """Change `description` or `public_predictions`."""
        return self._api.record("PATCH", f"/groups/{part(name)}", changes, revision=revision)

    def delete_group(self, name: str, *, revision: int | None = None) -> None:
        """Remove a group that has no services."""
        self._api.send("DELETE", f"/groups/{part(name)}", revision=revision)

    def set_quota(
        self, group: str, *, revision: int | None = None, **quota: float | None
    ) -> Record:
        """Bound what a group's deployments use together: `cpu`, `memory`, `gpu`, `replicas`.

        What is left out is not bounded.
        """
        path = f"/groups/{part(group)}/quota"
        return self._api.record("PUT", path, quota, revision=revision)

    def members(self, group: str) -> list[Record]:
        """Who may do what in a group."""
        return list(self._api.items(f"/groups/{part(group)}/members"))

    def share(self, group: str, user: str, level: str) -> Record:
        """Let a user `read`, `modify` or `manage` a group."""
        path = f"/groups/{part(group)}/members/{part(user)}"
        return self._api.record("PUT", path, {"level": level})

    def unshare(self, group: str, user: str) -> None:
        """Take a user's level in a group away."""
        self._api.send("DELETE", f"/groups/{part(group)}/members/{part(user)}")

    def instance_types(self) -> list[Record]:
        """Named resources of one replica."""
        return list(self._api.items("/instance-types"))

    def instance_type(self, name: str) -> Record:
        """One of them."""
        return self._api.record("GET", f"/instance-types/{part(name)}")

    def create_instance_type(self, name: str, **resources: Any) -> Record:
        """Make one: `cpu`, `memory` (bytes), `gpu`, `description`."""
        return self._api.record("POST", "/instance-types", {"name": name, **resources})

    def edit_instance_type(
        self, name: str, *, revision: int | None = None, **changes: Any
    ) -> Record:
        """Change one; what is deployed keeps what it has until it is deployed again."""
        path = f"/instance-types/{part(name)}"
        return self._api.record("PATCH", path, changes, revision=revision)

    def delete_instance_type(self, name: str, *, revision: int | None = None) -> None:
        """Remove one; what is deployed with it stays as it is."""
        self._api.send("DELETE", f"/instance-types/{part(name)}", revision=revision)

    def node(self) -> Record:
        """What the node has, and what of it is in use, by group."""
        return self._api.record("GET", "/node")

    def audit(self, limit: int = 100, **filters: Any) -> list[Record]:
        """Who did what, newest first.

        Args:
            limit: at most so many.
            filters: `actor`, `action`, `kind`, `name`, `group`, `peer`, `outcome` (`ok`,
                `refused`, `failed`), `since`, `until`.
        """
        return self._api.first(limit, "/audit", filters)
