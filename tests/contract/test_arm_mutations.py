"""10,000 requests that are nearly right: each is answered by ARM's rules, and a refusal leaves no trace.

STRONGROOM_MUTATIONS and STRONGROOM_SEED ask for more of them, or for others.
"""

import contextlib
import os
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

from strongroom.controlplane.arm.table import OPERATIONS
from strongroom.testbed.postgres import Postgres

from .arm_stage import Answer, Stage, bodies_of, open_stage
from .mutated_requests import Mutations, Request

REQUESTS = int(os.environ.get("STRONGROOM_MUTATIONS", "10000"))
SEED = int(os.environ.get("STRONGROOM_SEED", "4"))
REWIND = 50  # requests: after that many, what succeeded is undone, so that the state stays one worth asking about
SHOWN = 12  # different failures in a message

# What no answer may tell: where our code lies, what it is made of, what it asks the database.
INSIDE = re.compile(
    rb"Traceback|File \\?\"|\.py\b|sqlalchemy|sqlite|psycopg|dbos|starlette|pydantic|msgspec|SELECT |INSERT |"
    rb"object at 0x|\b[A-Z]\w+Error\(|KeyError|TypeError|ValueError|NoneType|dict_keys"
)


def problem_of(request: Request, answer: Answer, home: Path) -> str:
    """Return what is wrong with an answer, "" if nothing is."""
    if "x-ms-request-id" not in answer.headers:
        return "no x-ms-request-id"
    if str(home).encode() in answer.content:
        return "it names our folder"
    if 200 <= answer.status < 300:
        return ""
    # What the caller sent may come back in the message: only what it did not send is of our inside.
    if (found := INSIDE.search(answer.content)) and found.group() not in request.body + request.path.encode("latin-1"):
        return f"it tells of our inside: {found.group()!r}"
    if answer.status >= 500 and answer.status != 501:
        return f"status {answer.status}: {answer.content[:300]!r}"
    if answer.status < 400:
        return f"status {answer.status}"
    if request.method == "HEAD":
        return ""
    try:
        error = answer.json()["error"]
        code, message = error["code"], error["message"]
    except (ValueError, KeyError, TypeError):
        return f"no ARM error: {answer.content[:300]!r}"
    if not (isinstance(code, str) and re.fullmatch(r"[A-Za-z]\w+", code) and isinstance(message, str) and message):
        return f"no code or no message: {answer.content[:300]!r}"
    if answer.status == 501 and code != "NotSupported":
        return f"501 with the code {code}"
    return ""


async def ask(stage: Stage, requests: int, changed: Callable[[], bool]) -> dict[int, int]:
    """Send mutated requests and judge all answers; return how many had which status.

    *changed* tells whether anything was committed since it was last asked.
    """
    mutations = Mutations(SEED, OPERATIONS, stage.names, bodies_of(stage))
    start = stage.dump()
    found: dict[str, list[str]] = {}
    statuses: dict[int, int] = {}
    for number in range(requests):
        if number % REWIND == 0:
            stage.rewind(start)
            before = start
            changed()
        request = mutations.request()
        answer = await stage.send(
            request.method, request.path, request.body, query=request.query, headers=request.headers
        )
        statuses[answer.status] = statuses.get(answer.status, 0) + 1
        problem = problem_of(request, answer, stage.home)
        if changed():
            now = stage.dump()
            if answer.status >= 400 and now != before:
                tables = sorted(name for name in now if now[name] != before[name])
                problem = problem or f"status {answer.status} and changed {tables}: {answer.content[:200]!r}"
            before = now
        if problem:
            found.setdefault(f"{request.operation}: {problem[:160]}", []).append(f"#{number} {request}: {problem}")
    examples = "\n\n".join(each[0] for each in list(found.values())[:SHOWN])
    assert not found, f"{sum(map(len, found.values()))} of {requests} ({len(found)} kinds), seed {SEED}:\n{examples}"
    # A test whose requests are all refused at the door would show nothing.
    successes = sum(count for status, count in statuses.items() if status < 300)
    assert requests * 0.1 < successes < requests * 0.9, statuses
    assert {400, 404, 405, 409} <= statuses.keys()
    return statuses


async def test_ten_thousand_mutated_requests_are_answered_by_arms_rules_and_refusals_change_nothing(
    tmp_path: Path,
) -> None:
    stage = await open_stage(tmp_path)
    with contextlib.closing(stage.db), sqlite3.connect(stage.home / "state.sqlite") as watcher:
        known = [0]

        def changed() -> bool:
            # Moves when another connection has committed a change.
            now = int(watcher.execute("PRAGMA data_version").fetchone()[0])
            known[0], before = now, known[0]
            return now != before

        await ask(stage, REQUESTS, changed)


async def test_postgresql_takes_the_same_texts_and_refusals_change_nothing_there(
    tmp_path: Path, postgres: Postgres
) -> None:
    with postgres.database() as url:
        stage = await open_stage(tmp_path, url)
        with contextlib.closing(stage.db):
            # It has no cheap sign of a change: every answer is followed by a look at all tables.
            await ask(stage, max(REQUESTS // 10, 100), lambda: True)
