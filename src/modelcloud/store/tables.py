"""The tables of the store. Times are seconds since the epoch, sizes are bytes.

Must never: hold a secret that could be used if read: passwords and tokens are kept as hashes.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Double,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

#: Names by which migrations find constraints, the same on every database.
_NAMES = {
    "ix": "ix_%(column_0_N_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """Base of all tables. A JSON value is replaced as a whole: a change inside it is not seen."""

    metadata = MetaData(naming_convention=_NAMES)
    type_annotation_map = {  # noqa: RUF012 — SQLAlchemy's own form
        dict[str, Any]: JSON(none_as_null=True),
        list[Any]: JSON(none_as_null=True),
        bytes: LargeBinary,
        float: Double,
    }
    #: SQLite else gives the id of the last row to the next one once that row is deleted.
    __table_args__: Any = {"sqlite_autoincrement": True}  # noqa: RUF012 — likewise


class Platform(Base):
    """The one row that says whose store this is: its data folder holds the same id."""

    __tablename__ = "platform"

    id: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[float]


class User(Base):
    """Who signs in. `password_hash` is Argon2id."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    password_hash: Mapped[str]
    is_admin: Mapped[bool] = mapped_column(default=False)
    disabled: Mapped[bool] = mapped_column(default=False)
    must_change_password: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[float]
    revision: Mapped[int] = mapped_column(default=1)


class Group(Base):
    """Owns services. Quotas that are None do not limit."""

    __tablename__ = "groups"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    description: Mapped[str] = mapped_column(default="")
    public_predictions: Mapped[bool] = mapped_column(default=True)
    quota_cpu: Mapped[float | None]
    quota_memory: Mapped[int | None] = mapped_column(BigInteger)
    quota_gpu: Mapped[float | None]
    quota_replicas: Mapped[int | None]
    created_at: Mapped[float]
    revision: Mapped[int] = mapped_column(default=1)


class Member(Base):
    """A user's level (`read`, `modify`, `manage`) on a group."""

    __tablename__ = "members"

    group_id: Mapped[int] = mapped_column(
        ForeignKey("groups.id", ondelete="CASCADE"), primary_key=True
    )
    user_id: Mapped[int] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, index=True
    )
    level: Mapped[str]

    user: Mapped[User] = relationship()
    group: Mapped[Group] = relationship()


class Token(Base):
    """A bearer token of a user. `group_id` None: all the user's groups.

    `kind`: `session` (made by signing in) or `token`. `level`: at most this, `predict` among it.
    """

    __tablename__ = "tokens"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    group_id: Mapped[int | None] = mapped_column(
        ForeignKey("groups.id", ondelete="CASCADE"), index=True
    )
    kind: Mapped[str]
    name: Mapped[str] = mapped_column(default="")
    level: Mapped[str]
    digest: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[float]
    expires_at: Mapped[float | None]
    last_used_at: Mapped[float | None]

    user: Mapped[User] = relationship()
    group: Mapped[Group | None] = relationship()


class InstanceType(Base):
    """Named resources of one replica; 0 does not limit."""

    __tablename__ = "instance_types"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    description: Mapped[str] = mapped_column(default="")
    cpu: Mapped[float] = mapped_column(default=0.0)
    memory: Mapped[int] = mapped_column(BigInteger, default=0)
    gpu: Mapped[float] = mapped_column(default=0.0)
    revision: Mapped[int] = mapped_column(default=1)


class Service(Base):
    """A named model address. `sticky` is None or `{"kind": …, "name": …}`.

    `route` is a path without its leading slash, at the port `route_port` (0: the platform's own);
    `method` is `any`, or the only one that it answers. `source` is what keeps it as it is, such as
    a conf.ini; empty: people.
    """

    __tablename__ = "services"
    __table_args__ = (UniqueConstraint("route_port", "route"), Base.__table_args__)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    group_id: Mapped[int] = mapped_column(ForeignKey("groups.id"), index=True)
    description: Mapped[str] = mapped_column(default="")
    port: Mapped[int | None] = mapped_column(unique=True)
    route: Mapped[str | None]
    method: Mapped[str] = mapped_column(default="any")
    route_port: Mapped[int] = mapped_column(default=0)
    source: Mapped[str] = mapped_column(default="")
    sticky: Mapped[dict[str, Any] | None]
    next_version: Mapped[int] = mapped_column(default=1)
    next_generation: Mapped[int] = mapped_column(default=1)
    created_by: Mapped[str]
    created_at: Mapped[float]
    revision: Mapped[int] = mapped_column(default=1)

    group: Mapped[Group] = relationship()


class Artifact(Base):
    """Files in the artifact store, by the digest of their manifest."""

    __tablename__ = "artifacts"

    digest: Mapped[str] = mapped_column(primary_key=True)
    size: Mapped[int] = mapped_column(BigInteger)
    files: Mapped[int]
    created_at: Mapped[float]


class Version(Base):
    """An immutable artifact of a service; what may change is description, metrics and `enabled`.

    `signature` is `sdk.contract.Signature.to_dict()`; `curves` is series → list of [step, value];
    `origin` says where it came from, `monitor_id` which monitor brought it; `main` is the served
    file below the artifact's root.
    """

    __tablename__ = "versions"
    __table_args__ = (UniqueConstraint("service_id", "number"), Base.__table_args__)

    id: Mapped[int] = mapped_column(primary_key=True)
    service_id: Mapped[int] = mapped_column(ForeignKey("services.id", ondelete="CASCADE"))
    number: Mapped[int]
    artifact: Mapped[str] = mapped_column(ForeignKey("artifacts.digest"), index=True)
    main: Mapped[str]
    runtime: Mapped[str]
    options: Mapped[dict[str, Any]]
    requirements: Mapped[str] = mapped_column(default="")
    python: Mapped[str] = mapped_column(default="")
    model_path: Mapped[str] = mapped_column(default="")
    enabled: Mapped[bool] = mapped_column(default=True)
    description: Mapped[str] = mapped_column(default="")
    metrics: Mapped[dict[str, Any]]
    curves: Mapped[dict[str, Any]]
    signature: Mapped[dict[str, Any]]
    origin: Mapped[dict[str, Any]]
    monitor_id: Mapped[int | None] = mapped_column(
        ForeignKey("monitors.id", ondelete="SET NULL"), index=True
    )
    created_by: Mapped[str]
    created_at: Mapped[float]
    revision: Mapped[int] = mapped_column(default=1)

    service: Mapped[Service] = relationship()


class Monitor(Base):
    """Brings new versions of a service from a remote place.

    Attributes:
        settings: the `MonitorBody` it was made of, but for what is secret.
        secrets: that, encrypted with the key file of the data folder; None: nothing is.
            `secret_names` says what there is.
        acts_as: whoever made or last changed it; None: the user is gone, and it does nothing.
        seen: the `monitors.mark.Seen` of the model that was registered last, as JSON.
        pending: a version that was registered and whose rollout is still to be begun.
        deployment_id: where its versions go online; None: the next one does as a new deployment.
        error: why its last look failed; empty: it did not.
    """

    __tablename__ = "monitors"
    __table_args__ = (UniqueConstraint("service_id", "name"), Base.__table_args__)

    id: Mapped[int] = mapped_column(primary_key=True)
    service_id: Mapped[int] = mapped_column(ForeignKey("services.id", ondelete="CASCADE"))
    name: Mapped[str]
    settings: Mapped[dict[str, Any]]
    secrets: Mapped[bytes | None]
    secret_names: Mapped[list[Any]]
    acts_as: Mapped[int | None] = mapped_column(
        ForeignKey("users.id", ondelete="SET NULL"), index=True
    )
    paused: Mapped[bool] = mapped_column(default=False)
    seen: Mapped[dict[str, Any] | None]
    pending: Mapped[int | None]
    deployment_id: Mapped[int | None]
    error: Mapped[str] = mapped_column(default="")
    error_at: Mapped[float | None]
    changed_at: Mapped[float | None]
    created_by: Mapped[str]
    created_at: Mapped[float]
    revision: Mapped[int] = mapped_column(default=1)

    service: Mapped[Service] = relationship()


class MonitorEvent(Base):
    """A look of a monitor that did something, or failed; the same failure again adds to `times`."""

    __tablename__ = "monitor_events"
    __table_args__ = (
        Index("ix_monitor_events_monitor_id_id", "monitor_id", "id"),
        Base.__table_args__,
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    monitor_id: Mapped[int] = mapped_column(ForeignKey("monitors.id", ondelete="CASCADE"))
    at: Mapped[float]
    last_at: Mapped[float]
    times: Mapped[int] = mapped_column(default=1)
    duration_s: Mapped[float]
    outcome: Mapped[str]
    version: Mapped[int | None]
    rollout_id: Mapped[int | None]
    detail: Mapped[str] = mapped_column(default="")


class Deployment(Base):
    """A version that is, or was, online.

    Attributes:
        wanted: `online`, `offline` or `deleted` (until its last worker is gone).
        state: of `types.State`; `reason` says why it is failed or offline.
        answers: the version numbers whose addresses lead here: its own, and those it replaced.
        options: the values it was deployed with, over the version's own.
        facts: the `rollout.snapshot.DeploymentSnapshot` it stands at, as JSON; {} before any.
    """

    __tablename__ = "deployments"

    id: Mapped[int] = mapped_column(primary_key=True)
    service_id: Mapped[int] = mapped_column(
        ForeignKey("services.id", ondelete="CASCADE"), index=True
    )
    version: Mapped[int]
    wanted: Mapped[str]
    state: Mapped[str]
    reason: Mapped[str] = mapped_column(default="")
    instance_type: Mapped[str]
    cpu: Mapped[float]
    memory: Mapped[int] = mapped_column(BigInteger)
    gpu: Mapped[float]
    replicas: Mapped[int]
    threads: Mapped[int] = mapped_column(default=1)
    dispatch: Mapped[dict[str, Any]]
    strategy: Mapped[dict[str, Any]]
    keep_warm_s: Mapped[float] = mapped_column(default=60.0)
    options: Mapped[dict[str, Any]]
    answers: Mapped[list[Any]]
    weight: Mapped[float] = mapped_column(default=1.0)
    shadow: Mapped[float] = mapped_column(default=0.0)
    facts: Mapped[dict[str, Any]]
    deployed_by: Mapped[str]
    created_at: Mapped[float]
    revision: Mapped[int] = mapped_column(default=1)

    service: Mapped[Service] = relationship()


class Label(Base):
    """A name, such as `stable`, for one deployment of a service."""

    __tablename__ = "labels"

    service_id: Mapped[int] = mapped_column(
        ForeignKey("services.id", ondelete="CASCADE"), primary_key=True
    )
    name: Mapped[str] = mapped_column(primary_key=True)
    deployment_id: Mapped[int] = mapped_column(
        ForeignKey("deployments.id", ondelete="CASCADE"), index=True
    )


class RolloutRow(Base):
    """The record of a rollout; it outlives its deployment. `target` is a `GenerationSpec`.

    `change` is what of its deployment's row becomes true with success: column → value.
    """

    __tablename__ = "rollouts"
    __table_args__ = (Index("ix_rollouts_service_id_id", "service_id", "id"), Base.__table_args__)

    id: Mapped[int] = mapped_column(primary_key=True)
    service_id: Mapped[int] = mapped_column(ForeignKey("services.id", ondelete="CASCADE"))
    deployment_id: Mapped[int] = mapped_column(index=True)
    kind: Mapped[str]
    state: Mapped[str] = mapped_column(index=True)
    step: Mapped[str]
    percent: Mapped[int] = mapped_column(default=0)
    reason: Mapped[str] = mapped_column(default="")
    strategy: Mapped[dict[str, Any]]
    source: Mapped[dict[str, Any] | None]
    target: Mapped[dict[str, Any]]
    change: Mapped[dict[str, Any]]
    actor: Mapped[str]
    accepted_at: Mapped[float]
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]


class IdempotencyKey(Base):
    """A request that is answered the same way when it is sent again."""

    __tablename__ = "idempotency_keys"

    user_id: Mapped[int] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    key: Mapped[str] = mapped_column(primary_key=True)
    request: Mapped[str]
    status: Mapped[int]
    answer: Mapped[dict[str, Any]]
    created_at: Mapped[float] = mapped_column(index=True)


class AuditEntry(Base):
    """Who did what to which object, from where, and what came of it. Never changed."""

    __tablename__ = "audit"
    __table_args__ = (Index("ix_audit_at", "at"), Base.__table_args__)

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[float]
    actor: Mapped[str] = mapped_column(index=True)
    action: Mapped[str]
    kind: Mapped[str]
    name: Mapped[str] = mapped_column(index=True)
    group: Mapped[str] = mapped_column("group_name", default="", index=True)
    peer: Mapped[str] = mapped_column(default="")
    outcome: Mapped[str]
    detail: Mapped[str] = mapped_column(default="")


class MetricPoint(Base):
    """What a version did from `at` for `span_s` seconds (10 or 300).

    `buckets` are the counts of `dataplane.metrics.BUCKETS`, packed u32, little-endian; times and
    counts are sums over the span, memory is the most that the version's workers held together.
    `errors` are answers with a status of 500 or more.
    """

    __tablename__ = "metric_points"
    __table_args__ = (Index("ix_metric_points_span_s_at", "span_s", "at"), Base.__table_args__)

    service_id: Mapped[int] = mapped_column(
        ForeignKey("services.id", ondelete="CASCADE"), primary_key=True
    )
    version: Mapped[int] = mapped_column(primary_key=True)
    span_s: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    requests: Mapped[int] = mapped_column(default=0)
    errors: Mapped[int] = mapped_column(default=0)
    buckets: Mapped[bytes]
    latency_sum_s: Mapped[float] = mapped_column(default=0.0)
    queue_sum_s: Mapped[float] = mapped_column(default=0.0)
    batches: Mapped[int] = mapped_column(default=0)
    batched: Mapped[int] = mapped_column(default=0)
    shadowed: Mapped[int] = mapped_column(default=0)
    shadow_same: Mapped[int] = mapped_column(default=0)
    shadow_different: Mapped[int] = mapped_column(default=0)
    memory: Mapped[int] = mapped_column(BigInteger, default=0)
    cpu_s: Mapped[float] = mapped_column(default=0.0)
