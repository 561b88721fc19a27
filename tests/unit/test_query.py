"""SQL over a repository: right answers, nothing read that the query does not need, no way out of the connection."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from strongroom.dataplane.objectstore.filesystem import FilesystemStore
from strongroom.dataplane.repository.errors import Damaged
from strongroom.dataplane.repository.model import (
    ClusterIdentity,
    GroupFailure,
    Incremental,
    Instant,
    KindEntry,
    Manifest,
    ReadAs,
    Selection,
    VolumeEntry,
    VolumeState,
)
from strongroom.dataplane.repository.objects import Parts, split
from strongroom.dataplane.repository.query import QueryRefused, RepositoryQuery, open_query
from strongroom.dataplane.repository.repository import Repository
from strongroom.dataplane.repository.run import ManifestDraft, Run

CLUSTER = ClusterIdentity(id="c0ffee", server="https://127.0.0.1:6443", version="v1.37.2")


def served(kind: str, namespace: str, name: str, *, data: str = "", labels: dict[str, str] | None = None) -> Parts:
    metadata = {"name": name, "namespace": namespace, "uid": f"uid-{kind}-{namespace}-{name}", "resourceVersion": "7"}
    item: dict[str, Any] = {"metadata": metadata | ({"labels": labels} if labels else {}), "data": {"key": data}}
    if kind == "Pod":
        item["status"] = {"phase": "Running"}
    return split(msgspec.json.encode(item), "", "v1", kind)


async def take_point(repository: Repository, objects: Iterable[Parts], *, revision: str = "100") -> Manifest:
    """Store *objects* (of the core group) as a recovery point with a volume and a failed group."""
    run = await Run.begin(repository)
    await run.know()
    kinds = []
    by_kind: dict[str, list[Parts]] = {}
    for each in objects:
        by_kind.setdefault(msgspec.json.decode(each.body)["kind"], []).append(each)
    for kind, parts in sorted(by_kind.items()):
        writer = run.kind("", "v1", kind)
        await writer.add(sorted(parts, key=lambda p: f"{p.namespace}/{p.name}".encode()))
        segments = await writer.finish()
        kinds.append(
            KindEntry(
                group="",
                version="v1",
                kind=kind,
                plural=f"{kind.lower()}s",
                namespaced=True,
                read_as=ReadAs.EXACT,
                objects=writer.objects,
                segments=segments,
            )
        )
    kinds.append(
        KindEntry(
            group="",
            version="v1",
            kind="Event",
            plural="events",
            namespaced=True,
            read_as=ReadAs.EXCLUDED,
            rule="noise",
        )
    )
    volume = VolumeEntry(
        namespace="shop", claim="data", claim_uid="u", state=VolumeState.SNAPSHOT_READY, handle="snap-1", skew_ms=-12
    )
    return await run.commit(
        ManifestDraft(
            started="2026-11-23T10:00:00Z",
            finished="2026-11-23T10:00:05Z",
            cluster=CLUSTER,
            selection=Selection(include_namespaces=("shop",)),
            instant=Instant(revision=revision, taken="2026-11-23T10:00:01Z"),
            incremental=Incremental(),
            state="Completed",
            kinds=kinds,
            failed_groups=[GroupFailure(group="metrics.example.com/v1", reason="no endpoints")],
            volumes=[volume],
            warnings=["one warning"],
        )
    )


@pytest.fixture(params=[True, False], ids=["sealed", "open"])
async def repository(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Repository]:
    store = FilesystemStore(tmp_path / "repository", create=True)
    made, _ = await Repository.init(store, key_file=tmp_path / "key.json", encryption=request.param)
    yield made
    await store.close()


@pytest.fixture
async def points(repository: Repository) -> list[Manifest]:
    """Two points: two pods, two Secrets and a ConfigMap; then one Secret changed and the ConfigMap gone."""
    pods = [served("Pod", "shop", "web", labels={"app": "web"}), served("Pod", "other", "web")]
    secret = served("Secret", "shop", "token", data="old")
    kept = served("Secret", "shop", "kept", data="same")
    first = await take_point(repository, [*pods, secret, kept, served("ConfigMap", "shop", "settings")])
    second = await take_point(repository, [*pods, served("Secret", "shop", "token", data="new"), kept], revision="200")
    return [first, second]


async def ask(query: RepositoryQuery, sql: str) -> list[tuple[Any, ...]]:
    result = await query.run(sql)
    return [row async for batch in result.batches for row in batch]


async def test_objects_has_a_row_for_each_point_and_object(repository: Repository, points: Sequence[Manifest]) -> None:
    async with open_query(repository) as query:
        rows = await ask(query, "SELECT recovery_point_id, kind, count(*) FROM objects GROUP BY ALL ORDER BY ALL")
    first, second = (point.id for point in points)
    assert rows == [
        (first, "ConfigMap", 1),
        (first, "Pod", 2),
        (first, "Secret", 2),
        (second, "Pod", 2),
        (second, "Secret", 2),
    ]


async def test_bodies_and_statuses_are_json(repository: Repository, points: Sequence[Manifest]) -> None:
    sql = (
        "SELECT recovery_point_id, body->>'$.data.key', status FROM objects "
        "WHERE kind = 'Secret' AND name = 'token' ORDER BY 1"
    )
    async with open_query(repository) as query:
        assert await ask(query, sql) == [(points[0].id, "old", None), (points[1].id, "new", None)]
        result = await query.run("SELECT status, labels FROM objects WHERE kind = 'Pod' AND namespace = 'shop' LIMIT 1")
        rows = [row async for batch in result.batches for row in batch]
    assert [column.type for column in result.columns] == ["JSON", "JSON"]
    assert rows == [({"phase": "Running"}, {"app": "web"})]


async def test_the_digest_of_a_row_is_that_of_its_body(repository: Repository, points: Sequence[Manifest]) -> None:
    async with open_query(repository) as query:
        rows = await ask(query, "SELECT digest, bytes, body::VARCHAR FROM objects")
    assert rows
    for digest, size, _ in rows:
        assert len(digest) == 64
        assert size > 0
    bodies = {bytes.fromhex(digest): body.encode() for digest, _, body in rows}
    assert all(repository.files.sealer.digest(body) == digest for digest, body in bodies.items())


@pytest.mark.parametrize(
    ("sql", "lists", "blobs"),
    [
        ("SELECT count(*) FROM points", 0, 0),
        ("SELECT count(*) FROM objects", 0, 0),
        ("SELECT kind, count(*) FROM objects GROUP BY kind", 0, 0),
        ("SELECT count(*) FROM (SELECT * FROM objects) WHERE kind = 'Pod'", 0, 0),
        ("SELECT name FROM objects WHERE kind = 'ConfigMap'", 1, 0),
        ("SELECT name, digest FROM objects WHERE kind = 'None'", 0, 0),
        ("SELECT body FROM objects WHERE kind = 'Pod' AND namespace = 'other'", 1, 2),
        ("SELECT name FROM objects WHERE kind = 'Secret' AND body->>'$.data.key' = 'new'", 2, 4),
        ("SELECT name FROM objects WHERE kind = 'Pod' AND status IS NOT NULL", 1, 4),
        ("WITH s AS (FROM objects) SELECT name FROM s WHERE kind = 'ConfigMap' AND name = 'settings'", 1, 0),
        ("DESCRIBE objects", 0, 0),
    ],
)
async def test_a_query_reads_only_the_lists_and_blobs_that_it_needs(
    repository: Repository, points: Sequence[Manifest], sql: str, lists: int, blobs: int
) -> None:
    """The Pods' list is shared by both points, so it is read once; a body counts for each row that needs it."""
    async with open_query(repository) as query:
        await ask(query, sql)
        assert (query.lists_read, query.blobs_read) == (lists, blobs)


async def test_a_filter_on_the_point_leaves_other_points_unread(
    repository: Repository, points: Sequence[Manifest]
) -> None:
    async with open_query(repository) as query:
        rows = await ask(
            query, f"SELECT name FROM objects WHERE recovery_point_id = '{points[0].id}' AND kind = 'Secret'"
        )
        assert query.lists_read == 1
    assert rows == [("kept",), ("token",)]


async def test_points_volumes_and_coverage_say_what_manifests_say(
    repository: Repository, points: Sequence[Manifest]
) -> None:
    async with open_query(repository) as query:
        point = await ask(
            query, "SELECT revision, state, finished, objects, warnings, selection FROM points ORDER BY 1"
        )
        volume = await ask(query, "SELECT DISTINCT claim, state, handle, skew_ms FROM volumes")
        excluded = await ask(query, "SELECT kind, rule FROM coverage WHERE read_as = 'excluded' GROUP BY ALL")
        failed = await ask(
            query, "SELECT \"group\", version, kind, reason FROM coverage WHERE read_as = 'failed' LIMIT 1"
        )
    assert point[0] == ("100", "Completed", "2026-11-23T10:00:05Z", 5, ["one warning"], {"includeNamespaces": ["shop"]})
    assert volume == [("data", "ready", "snap-1", -12)]
    assert excluded == [("Event", "noise")]
    assert failed == [("metrics.example.com", "v1", None, "no endpoints")]


async def test_history_of_one_object_is_a_query(repository: Repository, points: Sequence[Manifest]) -> None:
    sql = "SELECT count(DISTINCT digest) FROM objects WHERE kind = 'Secret' GROUP BY name ORDER BY name"
    async with open_query(repository) as query:
        assert await ask(query, sql) == [(1,), (2,)]


async def test_many_objects_come_in_several_segments_and_batches(repository: Repository) -> None:
    await take_point(repository, [served("Secret", f"ns-{i % 7}", f"s-{i:05}", data=str(i)) for i in range(6_000)])
    async with open_query(repository) as query:
        assert await ask(query, "SELECT sum((body->>'$.data.key')::INT) FROM objects") == [(sum(range(6_000)),)]
        assert await ask(query, "SELECT count(*) FROM objects WHERE namespace = 'ns-3'") == [(857,)]
        result = await query.run("SELECT name FROM objects ORDER BY name")
        sizes = [len(batch) async for batch in result.batches]
    assert sum(sizes) == 6_000
    assert max(sizes) <= 1_000


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_text('/etc/hostname')",
        "SELECT * FROM '/etc/hostname'",
        "SELECT * FROM glob('/etc/*')",
        "COPY (SELECT 1) TO 'out.csv'",
        "ATTACH 'other.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "EXPORT DATABASE 'out'",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "SET temp_directory = 'spill'",
        "RESET lock_configuration",
        "CREATE SECRET (TYPE s3)",
        "SELECT * FROM repository",
    ],
)
async def test_the_connection_gives_no_file_network_extension_or_variable(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sql: str
) -> None:
    monkeypatch.chdir(tmp_path)
    before = {path.name for path in tmp_path.iterdir()}
    async with open_query(repository) as query:
        with pytest.raises(QueryRefused):
            await ask(query, sql)
    assert {path.name for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("sql", ["SELEC 1", "SELECT nonsense FROM objects", "", "SELECT 1; SELECT 2"])
async def test_wrong_sql_is_a_usage_error(repository: Repository, sql: str) -> None:
    async with open_query(repository) as query:
        with pytest.raises(QueryRefused) as refused:
            await ask(query, sql)
    assert refused.value.exit_code == 2


async def test_a_damaged_list_is_reported_as_damage_not_as_wrong_sql(
    repository: Repository, points: Sequence[Manifest], tmp_path: Path
) -> None:
    for file in (tmp_path / "repository" / "lists").iterdir():
        file.write_bytes(file.read_bytes()[:-1] + b"\0")
    async with open_query(repository) as query:
        with pytest.raises(Damaged):
            await ask(query, "SELECT name FROM objects")


async def test_a_damaged_point_is_left_out_and_named(
    repository: Repository, points: Sequence[Manifest], tmp_path: Path
) -> None:
    manifest = tmp_path / "repository" / "points" / points[0].id / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:100])
    async with open_query(repository) as query:
        assert await ask(query, "SELECT recovery_point_id FROM points") == [(points[1].id,)]
        assert points[0].id in query.problems[0]


async def test_every_type_of_duckdb_comes_as_json_able_data(repository: Repository) -> None:
    sql = """SELECT TIMESTAMPTZ '2026-11-23 10:00:00+02', 170141183460469231731687303715884105727::HUGEINT,
        1.5::DECIMAL(4, 2), 'infinity'::TIMESTAMP, TIMESTAMP_NS '2026-01-01 00:00:00.123456789', 'nan'::DOUBLE,
        MAP {'a': 1}, ['{"q": 2}'::JSON], {'x': DATE '2026-01-02'}, 'ab'::BLOB, INTERVAL 3 DAYS, NULL, true"""
    async with open_query(repository) as query:
        (row,) = await ask(query, sql)
    msgspec.json.encode(row)
    assert row[:3] == ("2026-11-23T08:00:00Z", 170141183460469231731687303715884105727, 1.5)
    assert row[5:10] == ("nan", {"a": 1}, [{"q": 2}], {"x": "2026-01-02"}, "6162")
    assert row[11:] == (None, True)


async def test_a_cancelled_query_is_interrupted(repository: Repository) -> None:
    async with open_query(repository) as query:
        slow = asyncio.create_task(ask(query, "SELECT count(*) FROM range(10_000_000_000) a, range(1_000) b"))
        done, _ = await asyncio.wait([slow], timeout=0.5)
        assert not done
        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(slow, timeout=20)
