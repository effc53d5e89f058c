"""What a monitor remembers of its last model, so that a restart does not pull that again.

Must never: be written before the model is in its place.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import msgspec

from modelcloud.artifacts.snapshot import sync
from modelcloud.artifacts.store import remove_tree
from modelcloud.monitors.mark import Seen
from modelcloud.monitors.publish import hold, make_folder

log = logging.getLogger(__name__)

_STATE, _LOCK = "published.json", "lock"


class _State(msgspec.Struct, kw_only=True):
    identity: str
    seen: Seen


class Workplace:
    """The folder of one local model in `--local_tmp_path`; emptied of what a killed run left.

    Args:
        folder: that folder.
        identity: what is remembered counts for this only.

    Raises:
        UsageError: it cannot be written.
        Conflict: another monitor has it.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self._folder, self._identity = folder, identity
        make_folder(folder)
        self._lock = hold(folder / _LOCK, f"the temporary folder {folder}")
        for left in folder.iterdir():
            if left.name not in {_STATE, _LOCK}:
                remove_tree(left)

    def pulling(self) -> Path:
        """A new, empty folder to pull into."""
        number = 0
        while True:
            folder = self._folder / f"pull-{os.getpid()}-{number}"
            try:
                folder.mkdir(mode=0o700)
            except FileExistsError:
                number += 1
            else:
                return folder

    def published(self) -> Seen | None:
        """What was remembered; None if there is nothing, or it is of something else."""
        try:
            state = msgspec.json.decode((self._folder / _STATE).read_bytes(), type=_State)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError, msgspec.ValidationError) as error:
            log.warning("what was published last is not known: %s", error)
            return None
        return state.seen if state.identity == self._identity else None

    def remember(self, seen: Seen) -> None:
        """Remember that the model of this look is in its place."""
        new = self._folder / f"{_STATE}.new"
        new.write_bytes(msgspec.json.encode(_State(identity=self._identity, seen=seen)))
        sync(new)
        new.replace(self._folder / _STATE)
        sync(self._folder)
