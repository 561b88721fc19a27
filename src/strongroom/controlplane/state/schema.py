"""The tables of the control plane, the same on SQLite and PostgreSQL.

Identifiers of ARM are stored twice: as the caller wrote them, and lower-cased as the key, because ARM ids are
case-insensitive. Instants are text (`times.stamp`). Documents are JSON text that is sent as it is.
"""

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, Table, Text, text

metadata = MetaData()

resources = Table(
    "resources",
    metadata,
    Column("key", Text, primary_key=True),
    Column("id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("subscription", Text, nullable=False),
    Column("resource_group", Text, nullable=False),
    Column("parent", Text, nullable=False),
    Column("doc", Text, nullable=False),
    Column("private", Text, nullable=False),
    Column("etag", Text, nullable=False),
    Column("created", Text, nullable=False),
    Column("modified", Text, nullable=False),
    Index("resources_by_parent", "parent", "type", "key"),
    Index("resources_by_type", "type", "subscription", "key"),
    Index("resources_by_group", "subscription", "resource_group", "key"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("vault", Text, nullable=False),
    Column("instance", Text, nullable=False),
    Column("subscription", Text, nullable=False),
    Column("category", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("started", Text, nullable=False),
    Column("ended", Text),
    # What makes a scheduled job unique: instance and slot; NULL for jobs on demand.
    Column("slot", Text, unique=True),
    Column("doc", Text, nullable=False),
    Column("private", Text, nullable=False),
    Index("jobs_by_vault", "vault", "started", "id"),
    Index("jobs_by_instance", "instance", "category", "started"),
    Index("jobs_by_subscription", "subscription", "started", "id"),
    # At most one backup and one restore of an instance at a time: the second insert fails.
    Index(
        "jobs_one_at_a_time",
        "instance",
        "category",
        unique=True,
        sqlite_where=text("ended IS NULL"),
        postgresql_where=text("ended IS NULL"),
    ),
)

operations = Table(
    "operations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("resource", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("started", Text, nullable=False),
    Column("ended", Text),
    Column("caller", Text, nullable=False),
    Column("job", Text, nullable=False),
    Column("request", Text, nullable=False),
    Column("result", Text, nullable=False),
    Column("error", Text, nullable=False),
    Index("operations_by_age", "started"),
    Index(
        "operations_open",
        "resource",
        "kind",
        sqlite_where=text("ended IS NULL"),
        postgresql_where=text("ended IS NULL"),
    ),
)

points = Table(
    "points",
    metadata,
    Column("instance", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("time", Text, nullable=False),
    Column("expiry", Text, nullable=False),
    Column("tag", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("doc", Text, nullable=False),
    Column("private", Text, nullable=False),
    Index("points_by_time", "instance", "time"),
    Index("points_by_expiry", "state", "expiry"),
)

schedules = Table(
    "schedules",
    metadata,
    Column("instance", Text, primary_key=True),
    Column("due", Text, nullable=False),
    Index("schedules_by_due", "due"),
)

secrets = Table(
    "secrets", metadata, Column("name", Text, primary_key=True), Column("sealed", LargeBinary, nullable=False)
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("due", Text, nullable=False),
)

replays = Table(
    "replays",
    metadata,
    Column("key", Text, primary_key=True),
    Column("made", Text, nullable=False),
    Column("status", Integer, nullable=False),
    Column("headers", Text, nullable=False),
    Column("body", Text, nullable=False),
    Index("replays_by_age", "made"),
)

audit = Table(
    "audit",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("time", Text, nullable=False),
    Column("event", Text, nullable=False),
    Column("principal", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Index("audit_by_time", "time"),
)

principals = Table(
    "principals",
    metadata,
    Column("object_id", Text, primary_key=True),
    Column("app_id", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("resource", Text, nullable=False),
    Column("doc", Text, nullable=False),
    Index("principals_by_name", "name"),
    Index("principals_by_resource", "resource"),
)
