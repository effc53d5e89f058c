"""Monitors of services: made, changed, tested, paused; what they did.

Must never: look at a remote place; the platform does, in a process of its own.
"""

from __future__ import annotations

from typing import Any

from modelcloud.platform.connection import Connection, Record, given, part


class Monitors:
    """Monitors."""

    _api: Connection

    def monitors(self, service: str | None = None) -> list[Record]:
        """The monitors of a service, by name; None: of all services that you may read."""
        if service is None:
            return self._api.whole("/monitors")
        return self._api.whole(f"/services/{part(service)}/monitors")

    def monitor(self, service: str, name: str) -> Record:
        """One of them."""
        return self._api.record("GET", _monitor(service, name))

    def create_monitor(
        self,
        service: str,
        name: str,
        *,
        type: str,  # noqa: A002 — the word that `modelcloud monitor` has for it
        remote_path: str,
        remote_model_name: str,
        remote_donefile_name: str,
        idempotency_key: str | None = None,
        **fields: Any,
    ) -> Record:
        """Watch a remote place; each model that appears there becomes a version and goes online.

        Args:
            service: its name.
            name: of the monitor.
            type: of the place: `general`, `ftp`, `s3` …
            remote_path: the folder there.
            remote_model_name: the model in it.
            remote_donefile_name: the file that is written after it.
            idempotency_key: see `Platform`.
            fields: what else `POST /services/{service}/monitors` takes.
        """
        body = {"name": name, **_source(type, remote_path, remote_model_name,
                                        remote_donefile_name), **fields}  # fmt: skip
        place = f"/services/{part(service)}/monitors"
        return self._api.record("POST", place, given(body), key=idempotency_key)

    def edit_monitor(
        self, service: str, name: str, *, revision: int | None = None, **changes: Any
    ) -> Record:
        """Change settings; it acts in one's own name from then on."""
        return self._api.record("PATCH", _monitor(service, name), changes, revision=revision)

    def test_monitor(self, service: str, name: str | None = None, **fields: Any) -> Record:
        """Look once and say what came of it: with the settings of a monitor, or with these.

        Returns:
            `ok`, `error`, and what was found as `done` and `model`.
        """
        if name is not None:
            return self._api.record("POST", f"{_monitor(service, name)}/test")
        body = {"name": "test", **fields}
        return self._api.record("POST", f"/services/{part(service)}/monitors/test", given(body))

    def pause_monitor(self, service: str, name: str) -> Record:
        """Have it rest."""
        return self._api.record("POST", f"{_monitor(service, name)}/pause")

    def resume_monitor(self, service: str, name: str) -> Record:
        """Have it go on."""
        return self._api.record("POST", f"{_monitor(service, name)}/resume")

    def run_monitor(self, service: str, name: str) -> Record:
        """Have it look now."""
        return self._api.record("POST", f"{_monitor(service, name)}/run")

    def monitor_events(self, service: str, name: str, limit: int = 100) -> list[Record]:
        """Its looks that did something or failed, newest first, at most so many."""
        return self._api.first(limit, f"{_monitor(service, name)}/events", {})

    def delete_monitor(self, service: str, name: str, *, revision: int | None = None) -> None:
        """Watch no more; the versions that it brought stay."""
        self._api.send("DELETE", _monitor(service, name), revision=revision)


def _monitor(service: str, name: str) -> str:
    return f"/services/{part(service)}/monitors/{part(name)}"


def _source(kind: str, path: str, model: str, done: str) -> Record:
    return {
        "type": kind,
        "remote_path": path,
        "remote_model_name": model,
        "remote_donefile_name": done,
    }
