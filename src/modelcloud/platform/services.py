"""Services and their versions: uploaded, registered, read, changed, deleted.

Must never: import a model; the platform does that, in a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from modelcloud.platform.connection import Connection, Record, given, part, version_path

#: Bytes of an upload that are sent at a time.
CHUNK = 256 * 1024
#: For a version to be registered; the platform gives up before by itself.
REGISTER_S = 3600.0

Progress = Callable[[int, int], None]


class Services:
    """Services and versions."""

    _api: Connection

    def services(self, **filters: Any) -> list[Record]:
        """The services one may see, by name; by `group`, `state`, `q`."""
        return list(self._api.items("/services", filters))

    def service(self, name: str) -> Record:
        """One of them."""
        return self._api.record("GET", f"/services/{part(name)}")

    def create_service(
        self, name: str, group: str, *, idempotency_key: str | None = None, **fields: Any
    ) -> Record:
        """Make a service without versions.

        Args:
            name: what it is called.
            group: whose it is.
            idempotency_key: see `Platform`.
            fields: `description`, `port`; `route`, a further address of its prediction, with its
                `method` (GET, POST or any) and `route_port`; `source`, what keeps it as it is.
        """
        body = {"name": name, "group": group, **fields}
        return self._api.record("POST", "/services", body, key=idempotency_key)

    def edit_service(self, name: str, *, revision: int | None = None, **changes: Any) -> Record:
        """Change `description`, `port`, `route` (None: none), `method`, `route_port`, `source`."""
        return self._api.record("PATCH", f"/services/{part(name)}", changes, revision=revision)

    def delete_service(self, name: str, *, revision: int | None = None) -> None:
        """Delete a service with all its versions, online or not."""
        self._api.send("DELETE", f"/services/{part(name)}", revision=revision)

    def upload(self, archive: str | Path, progress: Progress | None = None) -> Record:
        """Send an archive; `upload` of the answer is what `register` takes.

        It is kept for a day, until it is registered or refused for what it holds.

        Args:
            archive: a tar (plain, gz, bz2, xz, zst) or zip file.
            progress: called with the bytes sent so far, and all.
        """
        archive = Path(archive)
        size = archive.stat().st_size

        def pieces() -> Iterator[bytes]:
            sent = 0
            with archive.open("rb") as file:
                while piece := file.read(CHUNK):
                    yield piece
                    sent += len(piece)
                    if progress is not None:
                        progress(sent, size)

        headers = {"content-type": "application/octet-stream", "content-length": str(size)}
        return self._api.record("POST", "/uploads", content=pieces(), headers=headers)

    def uploads(self) -> list[Record]:
        """One's own uploads that are not registered yet, oldest first."""
        return self._api.whole("/uploads")

    def delete_upload(self, upload: str) -> None:
        """Forget an archive that is not to be registered after all."""
        self._api.send("DELETE", f"/uploads/{part(upload)}")

    def register(
        self,
        service: str,
        *,
        upload: str | None = None,
        path: str | None = None,
        folder: str | None = None,
        idempotency_key: str | None = None,
        **fields: Any,
    ) -> Record:
        """Register a version from an upload, a path on the server, or a workspace.

        Args:
            service: made in the group `group`, else one's own, if it is new.
            upload: of `upload`'s answer.
            path: below one of the folders that the platform was started with.
            folder: in the workspace folder of the service's group.
            idempotency_key: see `Platform`.
            fields: `group`, `main`, `version`, `enabled`, `options`, `options_text` (each read by
                its type), `metrics`, `curves`, `description`, `requirements`, `python`,
                `model_path`, `port`.

        Raises:
            UsageError: what was given does not fit.
            UpdateFailed: the model cannot be imported; nothing is left of it.
        """
        body = given({"upload": upload, "path": path, "folder": folder, **fields})
        place = f"/services/{part(service)}/versions"
        return self._api.record("POST", place, body, key=idempotency_key, timeout=REGISTER_S)

    def versions(self, service: str) -> list[Record]:
        """All versions of a service, newest first."""
        return list(self._api.items(f"/services/{part(service)}/versions"))

    def version(self, service: str, version: int) -> Record:
        """One of them, with its signature and metrics."""
        return self._api.record("GET", version_path(service, version))

    def curves(self, service: str, version: int) -> Record:
        """Its training curves: `curves` holds series → list of [step, value]."""
        return self._api.record("GET", f"{version_path(service, version)}/curves")

    def edit_version(
        self, service: str, version: int, *, revision: int | None = None, **changes: Any
    ) -> Record:
        """Change `description`, `enabled` or `metrics`."""
        return self._api.record("PATCH", version_path(service, version), changes, revision=revision)

    def delete_version(self, service: str, version: int, *, revision: int | None = None) -> None:
        """Delete a version that no deployment uses."""
        self._api.send("DELETE", version_path(service, version), revision=revision)
