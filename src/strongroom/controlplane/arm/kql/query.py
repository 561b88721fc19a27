"""A Resource Graph query as its callers see it: parsed once, asked what it needs, run over rows."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from strongroom.controlplane.arm.kql import syntax
from strongroom.controlplane.arm.kql.conditions import Conditions, conditions, since
from strongroom.controlplane.arm.kql.evaluation import Clock, run, run_page
from strongroom.controlplane.arm.kql.parser import parse_query


@dataclass(frozen=True, slots=True)
class Query:
    """A query that parsed: it reads *table* (`RecoveryServicesResources` or `Resources`)."""

    table: str
    operators: tuple[syntax.Operator, ...]

    def conditions(self) -> Conditions:
        """Return the only values that count, for some of type, subscriptionId, resourceGroup, id, name, and
        `properties.vaultName`.

        The values are in lower case and meant without regard to case. A row whose column holds none of them cannot
        reach the answer; a row that does may still be dropped by `run`. An empty set means that no row can.
        """
        return conditions(self.operators)

    def since(self) -> datetime | None:
        """Return an instant before which no row of the answer has its `properties.startTime`, None if there is none."""
        return since(self.operators)

    def run(
        self, rows: Iterable[Mapping[str, Any]], *, now: datetime, clock: Clock = lambda: 0.0
    ) -> list[dict[str, Any]]:
        """Return the answer over *rows*, JSON objects with the columns of `parser.COLUMNS`; absent ones are null.

        *now* is what `now()` and `ago()` count from; without a time zone it is UTC. *clock* measures how long the run
        takes. *rows* are read once and are not changed; a query without an operator that needs them all, such as
        `take 5`, reads no more than it returns.
        Raises `KqlTooCostly` if the answer takes more time, work or memory than one query may.
        """
        return run(self.operators, rows, now, clock)

    def page(
        self, rows: Iterable[Mapping[str, Any]], *, now: datetime, skip: int, size: int, clock: Clock = lambda: 0.0
    ) -> tuple[list[dict[str, Any]], int]:
        """Return what `run` does, but only *size* rows from row *skip* on, and how many rows there are in all."""
        return run_page(self.operators, rows, now, clock, skip=skip, size=size)


def parse(query: str) -> Query:
    """Return *query* ready to run; raises `KqlError`, which points at the token, for all that is not supported."""
    table, operators = parse_query(query)
    return Query(table, operators)
