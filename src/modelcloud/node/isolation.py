"""What processes that run a model's code may reach of the platform's files: their own and no more.

Must never: touch a file; `dataplane.confinement` makes it so.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from modelcloud.dataplane.confinement import Confinement
from modelcloud.types import GenerationSpec


class Isolation(NamedTuple):
    """Of a node.

    Attributes:
        hidden: the platform's folders; what is not named below is out of reach in them.
        envs: folder of environments.
        caches: folder where libraries keep what they downloaded; all may write to it.
    """

    hidden: tuple[str, ...]
    envs: str
    caches: str

    def of_worker(self, spec: GenerationSpec, folder: Path) -> Confinement:
        """Its artifact and environment, to read; `folder`, which is its own."""
        return Confinement(
            hidden=self.hidden,
            readable=(spec.snapshot, *self._environment(spec.python)),
            writable=(str(folder), self.caches),
        )

    def of_preparation(self, spec: GenerationSpec, folder: Path) -> Confinement:
        """The artifact, to check; environments, to make one; `folder`, which is its own."""
        return Confinement(
            hidden=self.hidden,
            readable=(spec.snapshot,),
            writable=(self.envs, str(folder), self.caches),
        )

    def _environment(self, python: str) -> tuple[str, ...]:
        """The folder in `envs` that an interpreter stands in, if it does."""
        envs = Path(self.envs)
        below = Path(python).parts[len(envs.parts) :]
        if not Path(python).is_relative_to(envs) or len(below) < 2 or ".." in below:
            return ()
        return (str(envs / below[0]),)
