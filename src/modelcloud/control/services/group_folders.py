"""The folder that each group has for its workspaces, and what in it can be registered.

Users' programs write to it at any time, so that nothing found in it may be taken for granted.

Must never: lead out of the folder, or read what is in its files; staging does, in a process of its
own that follows no links.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from sqlalchemy import select

from modelcloud.artifacts.target import MAIN_FILES, is_skipped
from modelcloud.control.access import groups
from modelcloud.control.access.permissions import Action, Actor
from modelcloud.control.common.records import Record
from modelcloud.control.services.version_forms import RegisterBody
from modelcloud.errors import InvalidInput
from modelcloud.store.tables import Group, Service

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

#: In the data folder.
FOLDERS = "workspaces"
#: Files and folders that are looked at, and how deep; what lies beyond can still be named.
MOST_LOOKED_AT, DEEPEST = 5000, 4


class FolderRecord(Record):
    """A folder that a version can be made of: its path below the group's, and its main file."""

    folder: str
    main: str


def name_of(group: Group) -> str:
    """Of the group's folder; a later group that gets the same id does not get the files."""
    return f"{group.id}-{int(group.created_at * 1000)}"


def folder_of(data: Path, group: Group) -> Path:
    """Where it is, without links; it is made with the first workspace."""
    return data.resolve() / FOLDERS / name_of(group)


def left_in(data: Path) -> list[Path]:
    """The folders that there are."""
    try:
        return list((data / FOLDERS).iterdir())
    except FileNotFoundError:
        return []


def names(tx: Session) -> set[str]:
    """Those of the groups that there are."""
    return {name_of(group) for group in tx.scalars(select(Group))}


def group_for(tx: Session, actor: Actor, service: str, asked: RegisterBody) -> Group:
    """The group whose folder a version is to come from: that of its service.

    Raises:
        NotFound: there is no such group that the actor may see.
        Refused: the actor may not register in it.
    """
    there = tx.scalar(select(Service).where(Service.name == service))
    name = asked.group or actor.name if there is None else there.group.name
    return groups.find(tx, actor, name, Action.REGISTER)


def below(root: Path, folder: str) -> Path:
    """The folder that is named, below a group's own.

    Raises:
        InvalidInput: there is none of that name, or it lies elsewhere.
    """
    parts = PurePosixPath(folder).parts
    accepted = "the path of a folder in the group's workspace folder, such as `tutorial/fib`"
    if "\0" in folder or not parts or parts[0] == "/" or ".." in parts:
        raise InvalidInput("folder", repr(folder[:200]), accepted)
    found = root.joinpath(*parts)
    if not found.is_dir() or found.resolve() != found:
        raise InvalidInput("folder", repr(folder[:200]), accepted)
    return found


def found_in(root: Path) -> list[FolderRecord]:
    """The folders that hold the main file of a model."""
    return sorted(_found(root), key=lambda one: one.folder)


def _found(root: Path) -> Iterator[FolderRecord]:
    todo, left = [root], MOST_LOOKED_AT
    while todo and left > 0:
        here = todo.pop()
        try:
            with os.scandir(here) as found:
                entries = sorted(islice(found, left), key=lambda entry: entry.name, reverse=True)
        except OSError:  # it has just gone
            continue
        left -= len(entries) + 1
        files = {entry.name for entry in entries if entry.is_file(follow_symlinks=False)}
        path = here.relative_to(root)
        mains = [name for name in MAIN_FILES if name in files]
        if len(path.parts) and len(mains) == 1:
            yield FolderRecord(folder=path.as_posix(), main=mains[0])
        if len(path.parts) < DEEPEST:
            folders = (entry for entry in entries if entry.is_dir(follow_symlinks=False))
            todo += [Path(one.path) for one in folders if not is_skipped(Path(one.path))]
