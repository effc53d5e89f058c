"""A user's folder of model code, loaded as a worker loads it: staged, then imported from there."""

from __future__ import annotations

import tempfile
from pathlib import Path
from textwrap import dedent
from typing import Any

from modelcloud.artifacts import snapshot
from modelcloud.artifacts.stage import StageRequest, stage
from modelcloud.artifacts.tree import Caps
from modelcloud.sdk.contract import Backend
from modelcloud.sdk.loader import load_backend
from modelcloud.sdk.options import complete_options
from modelcloud.types import GenerationSpec


class Project:
    """Files below `folder`; snapshots of them below `staged`."""

    def __init__(self, folder: Path, staged: Path) -> None:
        self.folder, self.staged = folder, staged

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text).lstrip("\n"))
        return path

    def stage(self, target: str = "model.py", **given: Any) -> GenerationSpec:
        taken = snapshot.take(target, self.staged)
        return GenerationSpec(
            service="s",
            generation=1,
            version=1,
            target=target,
            snapshot=str(taken.folder),
            digest=taken.digest,
            **given,
        )

    def keep(self, main: str = "", **given: Any) -> GenerationSpec:
        """As an artifact of the store, with all its files, in a folder that is not this one."""
        work = Path(tempfile.mkdtemp(dir=self.staged.parent))
        request = StageRequest(
            source=str(self.folder), work=str(work), main=main, caps=Caps(bytes=1 << 24)
        )
        staged = stage(request)
        kept = Path(staged.folder).rename(work / staged.digest)
        return GenerationSpec(
            service="s",
            generation=1,
            version=1,
            target=staged.main,
            snapshot=str(kept),
            digest=staged.digest,
            **given,
        )

    def backend(self, target: str = "model.py", **given: Any) -> Backend:
        """The backend, its model not yet loaded."""
        return load_backend(self.stage(target, **given))

    def loaded(
        self, target: str = "model.py", options: dict[str, Any] | None = None, **given: Any
    ) -> Backend:
        """The backend with its model."""
        backend = self.backend(target, **given)
        backend.load(complete_options(backend.signature, options or {}))
        return backend
