"""What a query may cost: time within one row too, rows held, pages of long answers; and whose turn it is."""

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest

from strongroom.controlplane.arm import turns
from strongroom.controlplane.arm.errors import ArmError
from strongroom.controlplane.arm.kql import KqlTooCostly, evaluation, parse
from strongroom.controlplane.arm.turns import SearchTurns

NOW = datetime(2026, 3, 1, tzinfo=UTC)
LONG = "x" * 500_000
WIDE = {"name": LONG, "id": "a", "properties": {f"p{n}": "y" * 50 for n in range(500)}}


@pytest.mark.parametrize(
    "query",
    [
        "where " + " or ".join(["name contains 'z'"] * 2_500),
        "where " + " and ".join(["name !has 'z'"] * 2_500),
        "where id in (" + ", ".join(["tolower(name)"] * 2_500) + ")",
        "where " + " or ".join(["properties == 5"] * 2_500),
        "extend " + ", ".join(f"c{n} = tostring(properties)" for n in range(150)),
        "extend n = " + " + ".join(["toint(name)"] * 2_500),
        "where isempty(strcat(" + ", ".join(["tolower(substringless)"] * 60).replace("substringless", "id") + "))",
        "order by " + ", ".join(["tostring(properties) asc"] * 16),
        "summarize count() by " + ", ".join(f"c{n} = tolower(properties)" for n in range(150)),
        "where not(" + "iff(name contains 'z', true, " * 50 + "false" + ")" * 51,
    ],
    ids=lambda query: str(query)[:30],
)
def test_a_query_out_of_time_ends_within_the_row_that_takes_it(query: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Time that passes with each look at it: were it looked at once a row only, hundreds of rows would be read.
    monkeypatch.setattr(evaluation, "MAX_SECONDS", 10)
    read = 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal read
        while read < 1_000:
            read += 1
            yield WIDE

    with pytest.raises(KqlTooCostly, match="takes more than 10 seconds"):
        parse(f"Resources | {query}").run(rows(), now=NOW, clock=itertools.count().__next__)
    assert read <= 2


@pytest.mark.parametrize("query", ["", "| order by name asc", "| order by name asc, id desc", "| top 4000 by name"])
@pytest.mark.parametrize(("skip", "size"), [(0, 3), (5, 100), (4_990, 100), (6_000, 10), (10**30, 10)])
def test_a_page_is_that_part_of_the_answer(query: str, skip: int, size: int) -> None:
    rows = [{"name": f"n{number % 70}", "id": str(number)} for number in range(5_000)]
    parsed = parse(f"Resources {query}")
    whole = parsed.run(rows, now=NOW)
    assert parsed.page(rows, now=NOW, skip=skip, size=size) == (whole[skip : skip + size], len(whole))


@pytest.mark.parametrize("query", ["", "| extend x = strcat(name, id)", "| order by name asc"])
def test_a_page_of_more_rows_than_may_be_held_is_given(query: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"name": f"n{number % 70}", "id": str(number)} for number in range(5_000)]
    parsed = parse(f"Resources {query}")
    whole = parsed.run(rows, now=NOW)
    monkeypatch.setattr(evaluation, "MAX_ROWS_HELD", 1_050)
    assert parsed.page(rows, now=NOW, skip=7, size=20) == (whole[7:27], 5_000)
    if "order" in query:
        with pytest.raises(KqlTooCostly, match="more than 1050 rows"):
            parsed.page(rows, now=NOW, skip=2_000, size=20)


def test_wide_rows_are_held_in_smaller_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "MAX_CELLS_HELD", 1_000)
    wide = "Resources | extend " + ", ".join(f"c{n} = 1" for n in range(98)) + " | order by name"
    rows = [{"name": "a", "id": str(number)} for number in range(100)]
    with pytest.raises(KqlTooCostly, match="rows of 101 columns"):
        parse(wide).run(rows, now=NOW)
    assert len(parse("Resources | order by name").run(rows, now=NOW)) == 100


async def test_one_caller_has_his_turns_and_others_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "MAX_OF_CALLER", 5)
    searches, free = SearchTurns(), anyio.Event()
    running: list[str] = []

    async def search(caller: str) -> None:
        async with searches.of(caller):
            running.append(caller)
            await free.wait()

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(search, "greedy")
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(ArmError) as refused:
            await search("greedy")
        assert (refused.value.status, refused.value.error.code) == (429, "RateLimiting")
        assert refused.value.headers["Retry-After"] == "5"
        assert refused.value.headers["x-ms-user-quota-resets-after"] == "00:00:05"
        group.start_soon(search, "other")
        await anyio.wait_all_tasks_blocked()
        assert sorted(running) == ["greedy", "greedy", "other"]
        free.set()
    assert running.count("greedy") == 5
    async with searches.of("greedy") as threads:
        assert threads.total_tokens == turns.RUNNING
