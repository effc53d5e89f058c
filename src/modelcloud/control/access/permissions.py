"""Who may do what: one pure decision over plain data, for every route, page and verb.

Must never: ask the store, or know how somebody signed in. Deny by default: an action that stands
in neither table below is allowed to nobody.
"""

from __future__ import annotations

from enum import Enum, IntEnum

import msgspec

from modelcloud.errors import Forbidden


class Level(IntEnum):
    """What a member, or a token, may do in a group; each holds all below it.

    `PREDICT` is for tokens only: it may ask the models of a group and see nothing else.
    """

    NONE = 0
    PREDICT = 1
    READ = 2
    MODIFY = 3
    MANAGE = 4

    @property
    def word(self) -> str:
        """As it stands in the store and in the API."""
        return self.name.lower()

    @classmethod
    def of(cls, word: str) -> Level:
        """The level of a stored word; `NONE` of one that is none."""
        return cls.__members__.get(word.upper(), cls.NONE)


class Action(str, Enum):
    """Everything that can be asked for, as it also stands in the audit log."""

    # of the instance
    READ_INSTANCE = "instance.read"  # instance types, node
    MANAGE_USERS = "users.manage"
    MANAGE_INSTANCE_TYPES = "instance_types.manage"
    MANAGE_QUOTAS = "quotas.manage"
    READ_AUDIT = "audit.read"  # of everything; entries of a group need `GROUP_AUDIT`
    READ_METRICS = "metrics.read_all"
    CREATE_GROUP = "groups.create"
    # of oneself
    READ_ACCOUNT = "account.read"  # who one is
    OWN_ACCOUNT = "account.own"  # password, tokens, sessions
    # of a group
    READ = "group.read"  # services, versions, rollouts, logs, metrics, members
    PREDICT = "group.predict"
    REGISTER = "versions.register"
    EDIT_VERSION = "versions.edit"
    EDIT_SERVICE = "services.edit"
    DEPLOY = "deployments.deploy"  # new and replace
    UPDATE = "deployments.update"  # options, redeploy, start, scale, roll back, traffic, labels
    MONITOR = "monitors.edit"  # make, change, pause, run now, test
    WORKSPACE = "workspaces.start"  # start one, and work in it
    STOP_WORKSPACE = "workspaces.stop"
    STOP = "deployments.stop"
    DELETE = "deployments.delete"  # a deployment, version or monitor, a service with all of them
    SHARE = "groups.share"
    EDIT_GROUP = "groups.edit"
    GROUP_AUDIT = "groups.audit"


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks.

    Attributes:
        levels: group id → level as a member.
        scope_group: the only group that the presented token opens; None: all.
        scope_level: the most that the presented token opens.
        session: whether it signed in, rather than presenting a token made for a purpose.
        must_change_password: it may do nothing else before that (see `auth`).
        token_id: of the presented token.
        peer: the address it asks from.
    """

    user_id: int
    name: str
    is_admin: bool = False
    levels: dict[int, Level] = {}
    scope_group: int | None = None
    scope_level: Level = Level.MANAGE
    session: bool = True
    must_change_password: bool = False
    token_id: int = 0
    peer: str = ""


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked about: of a group (`group_id`), or of the instance (None).

    Attributes:
        kind, name, group: the object and its group in words, for the audit log.
        owners: who deployed all that the action touches; with `STOP`, `STOP_WORKSPACE` and
            `DELETE`, one's own needs less. Empty: nothing of anybody's is touched.
        user_id: the account an action on an account is about.
    """

    group_id: int | None = None
    owners: frozenset[str] | None = None
    user_id: int | None = None
    kind: str = ""
    name: str = ""
    group: str = ""


INSTANCE = Resource()

#: For instance administrators.
_ADMIN = frozenset({
    Action.MANAGE_USERS, Action.MANAGE_INSTANCE_TYPES, Action.MANAGE_QUOTAS, Action.READ_AUDIT,
    Action.READ_METRICS,
})  # fmt: skip
#: In a group, at least this level. An instance administrator has `MANAGE` in each.
_LEVELS: dict[Action, Level] = {
    Action.PREDICT: Level.PREDICT,
    Action.READ: Level.READ,
    Action.REGISTER: Level.MODIFY,
    Action.EDIT_VERSION: Level.MODIFY,
    Action.EDIT_SERVICE: Level.MODIFY,
    Action.DEPLOY: Level.MODIFY,
    Action.UPDATE: Level.MODIFY,
    Action.MONITOR: Level.MODIFY,
    Action.WORKSPACE: Level.MODIFY,
    Action.STOP_WORKSPACE: Level.MANAGE,
    Action.STOP: Level.MANAGE,
    Action.DELETE: Level.MANAGE,
    Action.SHARE: Level.MANAGE,
    Action.EDIT_GROUP: Level.MANAGE,
    Action.GROUP_AUDIT: Level.MANAGE,
}
#: These need only `MODIFY` where everything they touch was deployed by who asks, or is theirs.
_OWN = frozenset({Action.STOP, Action.STOP_WORKSPACE, Action.DELETE})


def level_in(actor: Actor, group_id: int) -> Level:
    """The actor's level in a group, as far as the presented token opens it."""
    if actor.scope_group not in {None, group_id}:
        return Level.NONE
    held = Level.MANAGE if actor.is_admin else actor.levels.get(group_id, Level.NONE)
    return min(held, actor.scope_level)


def readable_groups(actor: Actor) -> frozenset[int] | None:
    """The ids of the groups that the actor may read, for lists; None: all there are."""
    if actor.scope_level < Level.READ:
        return frozenset()
    if actor.is_admin:
        return None if actor.scope_group is None else frozenset({actor.scope_group})
    return frozenset(g for g in actor.levels if level_in(actor, g) >= Level.READ)


def allowed(actor: Actor | None, action: Action, resource: Resource = INSTANCE) -> bool:
    """Whether `actor` (None: nobody signed in) may do `action` to `resource`."""
    if actor is None:
        return False
    if action is Action.READ_ACCOUNT:
        return True
    if action is Action.READ_INSTANCE:
        return actor.scope_level >= Level.READ
    unlimited = actor.scope_group is None and actor.scope_level >= Level.MANAGE
    if action is Action.CREATE_GROUP:
        return unlimited
    if action in _ADMIN:
        return actor.is_admin and unlimited
    if action is Action.OWN_ACCOUNT:
        return actor.session and resource.user_id == actor.user_id
    if resource.group_id is None or action not in _LEVELS:
        return False
    needed = _LEVELS[action]
    if action in _OWN and resource.owners is not None and resource.owners <= {actor.name}:
        needed = Level.MODIFY
    return level_in(actor, resource.group_id) >= needed


class Refused(Forbidden):
    """`allowed` said no; the audit log keeps who asked for what.

    Attributes:
        actor: who asked.
        action, resource: what was asked for.
    """

    def __init__(self, actor: Actor, action: Action, resource: Resource, message: str) -> None:
        super().__init__(message)
        self.actor = actor
        self.action = action
        self.resource = resource


def require(actor: Actor, action: Action, resource: Resource = INSTANCE) -> None:
    """Return if `actor` may do `action` to `resource`.

    What the actor may not even read is for the caller to answer with `NotFound`, before.

    Raises:
        Refused: it may not; the message says what it would need.
    """
    if not allowed(actor, action, resource):
        raise Refused(actor, action, resource, _need(actor, action, resource))


def _need(actor: Actor, action: Action, resource: Resource) -> str:
    if action in _LEVELS and resource.group_id is not None:
        level = _LEVELS[action].word
        where = f"group {resource.group!r}" if resource.group else "its group"
        own = " or to have deployed all of it yourself" if action in _OWN else ""
        return f"{action.value}: this needs the level {level} on {where}{own}"
    if action in _ADMIN:
        if actor.is_admin:
            return f"{action.value}: this token is limited to less than you may do yourself"
        return f"{action.value}: this needs an administrator of the instance"
    if action is Action.OWN_ACCOUNT:
        return f"{action.value}: only the user, signed in with a password, may do this"
    return f"{action.value}: this token is limited to less than you may do yourself"
