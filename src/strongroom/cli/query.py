"""`strongroom query`: SQL over a repository."""

import json
from typing import Annotated

from cyclopts import Parameter

from strongroom.cli.options import RepositoryOptions
from strongroom.cli.output import DEFAULT_OUTPUT, Format, ListWriter, Output, note
from strongroom.cli.session import open_repository
from strongroom.dataplane.repository.query import Column, open_query
from strongroom.errors import ExitCode


async def query(
    sql: Annotated[str, Parameter(metavar="SQL")],
    /,
    *,
    repository: RepositoryOptions,
    output: Output = DEFAULT_OUTPUT,
) -> ExitCode:
    """Ask a repository in SQL (duckdb's), over the views points, objects, volumes and coverage.

    `body` and `status` of objects are JSON: `body->>'$.spec.replicas'`. They are read only where a query uses them.
    `group` is a word of SQL: write it "group". The connection sees no file, no network and no extension. Exits with 4
    when a recovery point is damaged and so left out.

    Parameters
    ----------
    sql
        One statement. `DESCRIBE objects` shows the columns of a view.
    """
    async with open_repository(repository) as opened, open_query(opened) as connection:
        for problem in connection.problems:
            note(output, f"warning: {problem}")
        result = await connection.run(sql)
        names = unique_names(result.columns)
        with ListWriter(output, names, keep_case=True) as found:
            async for rows in result.batches:
                for row in rows:
                    cells = [_cell(value) if output.output is Format.TABLE else value for value in row]
                    found.add(dict(zip(names, row, strict=True)), cells, " ".join(map(str, cells)))
        return ExitCode.DAMAGED if connection.problems else ExitCode.WHOLE


def unique_names(columns: tuple[Column, ...]) -> list[str]:
    """Return the columns' names; a name that comes again gets `_2`, `_3`, … so that no value is lost in an object."""
    names: list[str] = []
    for column in columns:
        name, number = column.name, 1
        while name in names:
            number += 1
            name = f"{column.name}_{number}"
        names.append(name)
    return names


def _cell(value: object) -> object:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value
