"""10,000 requests that are nearly right: each is answered by ARM's rules, and a refusal leaves no trace.

STRONGROOM_MUTATIONS and STRONGROOM_SEED ask for more of them, or for others.
"""

import json
import os
import re
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from strongroom.controlplane.arm.table import OPERATIONS

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


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    opened = await open_stage(tmp_path)
    yield opened
    opened.db.close()


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


async def test_ten_thousand_mutated_requests_are_answered_by_arms_rules_and_refusals_change_nothing(
    stage: Stage,
) -> None:
    mutations = Mutations(SEED, OPERATIONS, stage.names, bodies_of(stage))
    start = stage.dump()
    found: dict[str, list[str]] = {}
    statuses: dict[int, int] = {}
    before = start
    with sqlite3.connect(stage.home / "state.sqlite") as watcher:

        def version() -> int:
            # Moves when another connection has committed a change.
            return int(watcher.execute("PRAGMA data_version").fetchone()[0])

        known = version()
        for number in range(REQUESTS):
            if number % REWIND == 0:
                stage.rewind(start)
                before, known = start, version()
            request = mutations.request()
            answer = await stage.send(
                request.method, request.path, request.body, query=request.query, headers=request.headers
            )
            statuses[answer.status] = statuses.get(answer.status, 0) + 1
            problem = problem_of(request, answer, stage.home)
            if version() != known:
                now, known = stage.dump(), version()
                if answer.status >= 400 and now != before:
                    changed = sorted(name for name in now if now[name] != before[name])
                    problem = problem or f"status {answer.status} and changed {changed}: {answer.content[:200]!r}"
                before = now
            if problem:
                found.setdefault(f"{request.operation}: {problem[:160]}", []).append(f"#{number} {request}: {problem}")
    examples = "\n\n".join(each[0] for each in list(found.values())[:SHOWN])
    assert not found, f"{sum(map(len, found.values()))} of {REQUESTS} ({len(found)} kinds), seed {SEED}:\n{examples}"
    # A test whose requests are all refused at the door would show nothing.
    successes = sum(count for status, count in statuses.items() if status < 300)
    assert REQUESTS * 0.1 < successes < REQUESTS * 0.9, json.dumps(statuses)
    assert {400, 404, 405, 409} <= statuses.keys()
