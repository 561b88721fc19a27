"""Brings the tables of a database up to the schema of this version, one numbered step at a time."""

from collections.abc import Callable
from typing import Final

from sqlalchemy import Column, Connection, Engine, Integer, MetaData, Table, Text, inspect, select

from strongroom.controlplane.state import schema
from strongroom.controlplane.state.errors import StateError

_versions = Table("schema_version", MetaData(), Column("name", Text, primary_key=True), Column("version", Integer))


def _first(connection: Connection) -> None:
    schema.metadata.create_all(connection)


STEPS: Final[tuple[Callable[[Connection], None], ...]] = (_first,)
"""Step n takes a database from version n to n+1. Steps are only ever added; each runs in one transaction."""


def migrate(engine: Engine) -> None:
    """Run the missing steps. Raises `StateError` when the database was written by a newer version."""
    with engine.connect().execution_options(strongroom_write=True) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            # Two servers that start at once must not both make the tables.
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7310045)")
        if not inspect(connection).has_table("schema_version"):
            _versions.create(connection)
        found = connection.execute(select(_versions.c.version).where(_versions.c.name == "state")).scalar()
        version = found or 0
        if version > len(STEPS):
            raise StateError(
                f"the database has schema version {version}; this Strongroom knows versions up to {len(STEPS)}",
                hint="Run the newer Strongroom that wrote it",
            )
        for step in STEPS[version:]:
            step(connection)
        if found is None:
            connection.execute(_versions.insert().values(name="state", version=len(STEPS)))
        elif version != len(STEPS):
            connection.execute(_versions.update().where(_versions.c.name == "state").values(version=len(STEPS)))
