"""Reading one kind: whatever changed, a reading that takes over gives the same list as one that reads everything.

Against a small server that answers as an API server does: pages, exact revisions, metadata, single objects. What the
real one does is shown in tests/integration/test_collector_backup.py and test_one_instant.py.
"""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from strongroom.dataplane.collector.budget import ByteBudget
from strongroom.dataplane.collector.filtering import ObjectFilter
from strongroom.dataplane.collector.kindread import Base, KindRead, KindReading, Reader
from strongroom.dataplane.collector.selection import NamespaceFilter
from strongroom.dataplane.collector.stored import stored_segments
from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.config import ClusterAccess
from strongroom.dataplane.kube.credentials import NoCredentials
from strongroom.dataplane.kube.errors import KubeForbidden
from strongroom.dataplane.kube.kinds import Kind
from strongroom.dataplane.kube.selectors import parse_selectors
from strongroom.dataplane.objectstore.memory import MemoryStore
from strongroom.dataplane.repository.errors import Damaged
from strongroom.dataplane.repository.keyfile import KeyFile
from strongroom.dataplane.repository.model import ObjectRow
from strongroom.dataplane.repository.repository import Repository
from strongroom.dataplane.repository.run import Run

KIND = Kind("", "v1", "ConfigMap", "configmaps", namespaced=True, verbs=frozenset({"list"}))
NAMESPACES = ("a", "a-b", "b")  # in the one order a-b comes first
OBJECTS = 2_500  # several list segments, several pages

Name = tuple[str, str]
State = dict[Name, dict[str, Any]]


def compact(document: Any) -> str:
    """JSON as an API server writes it."""
    return json.dumps(document, separators=(",", ":"))


class Server:
    """A kind's objects through all revisions; *shuffled* lists them in no order, *denied* namespaces not at all."""

    def __init__(self) -> None:
        self.states: dict[int, State] = {1: {}}
        self.requests: list[dict[str, str]] = []
        self.shuffled = False
        self.denied: set[str] = set()

    @property
    def revision(self) -> int:
        return max(self.states)

    def write(self, changes: dict[Name, str | None]) -> str:
        """Set each object's value, or delete it (None), each at a revision of its own; return the newest."""
        state = dict(self.states[self.revision])
        revision = self.revision
        for name, value in changes.items():
            revision += 1
            if value is None:
                state.pop(name, None)
                continue
            uid = state[name]["metadata"]["uid"] if name in state else f"uid-{revision}"
            labels = {"parity": "even" if revision % 2 == 0 else "odd"}
            metadata = {"name": name[1], "namespace": name[0], "uid": uid, "resourceVersion": str(revision)}
            state[name] = {"metadata": {**metadata, "labels": labels}, "data": {"v": value}}
        self.states[revision] = state
        return str(revision)

    async def handle(self, request: web.Request) -> web.Response:
        query = dict(request.query)
        namespace = request.path.split("/")[4] if "/namespaces/" in request.path else None
        self.requests.append({**query, "metadata": "PartialObject" if "Partial" in request.headers["Accept"] else ""})
        if namespace in self.denied:
            status = {"kind": "Status", "code": 403, "reason": "Forbidden", "message": f"no list in {namespace}"}
            return web.json_response(status, status=403)
        after = b""
        revision = query.get("resourceVersion") or str(self.revision)
        if token := query.get("continue"):
            revision, _, name = token.partition(":")
            after = name.encode()
        state = self.states[max(each for each in self.states if each <= int(revision))]
        ordered = sorted((f"{key[0]}/{key[1]}".encode(), value) for key, value in state.items())
        if field := query.get("fieldSelector"):
            ordered = [each for each in ordered if each[1]["metadata"]["name"] == field.partition("=")[2]]
        items = [
            (key, value)
            for key, value in ordered
            if key > after and (namespace is None or value["metadata"]["namespace"] == namespace)
        ]
        limit = int(query.get("limit", 0)) or len(items)
        page, rest = items[:limit], items[limit:]
        metadata: dict[str, Any] = {"resourceVersion": revision}
        if rest:
            metadata |= {"continue": f"{revision}:{page[-1][0].decode()}", "remainingItemCount": len(rest)}
        documents = [value for _, value in page]
        if self.shuffled:
            documents.reverse()
        kind = "ConfigMapList"
        if "Partial" in request.headers["Accept"]:
            kind, documents = "PartialObjectMetadataList", [{"metadata": each["metadata"]} for each in documents]
        return web.json_response({"kind": kind, "metadata": metadata, "items": documents}, dumps=compact)

    def count(self, **wanted: str) -> int:
        """How many requests had all of *wanted* in their queries ("" for absent)."""
        return sum(all(each.get(key, "") == value for key, value in wanted.items()) for each in self.requests)

    @property
    def singles(self) -> int:
        return sum("fieldSelector" in each for each in self.requests)


@pytest.fixture
async def server() -> Server:
    return Server()


@pytest.fixture
async def api(server: Server) -> AsyncIterator[KubeApi]:
    app = web.Application()
    app.router.add_route("GET", "/{path:.*}", server.handle)
    async with TestServer(app) as listening:
        access = ClusterAccess(str(listening.make_url("")).rstrip("/"), None, NoCredentials())
        async with KubeApi(access) as api:
            yield api


@pytest.fixture
async def run(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Run]:
    store = MemoryStore(request.node.name, create=True)
    _, key = await Repository.init(store, key_file=tmp_path / "key.json")
    run = await Run.begin(await Repository.open(store, KeyFile.load(key)))
    yield run
    await run.abandon()


class Reading:
    """Reads the kind again and again into one run; compares what is stored with what the server had."""

    def __init__(self, server: Server, api: KubeApi, run: Run) -> None:
        self.server = server
        self.run = run
        self.reader = Reader(api, run, run.repository.files, ByteBudget(), asyncio.Semaphore(16))

    async def read(self, revision: str, base: Base | None = None, **more: Any) -> KindRead:
        keep = more.pop("keep", None) or ObjectFilter(NamespaceFilter(), None)
        self.server.requests.clear()
        return await KindReading(self.reader, KIND, keep, revision=revision, base=base, **more).read()

    async def rows(self, read: KindRead) -> list[ObjectRow]:
        return [
            row
            async for _, stored in stored_segments(self.run.repository.files, read.segments)
            for row in stored.rows()
        ]

    async def assert_is(self, read: KindRead, revision: str, *, parity: str = "", only: tuple[str, ...] = ()) -> None:
        """The stored list is the server's at *revision*: names in order, identities, and the digest of each body."""
        wanted = [
            value
            for _, value in sorted(
                (f"{key[0]}/{key[1]}".encode(), value) for key, value in self.server.states[int(revision)].items()
            )
            if (not parity or value["metadata"]["labels"]["parity"] == parity)
            and (not only or value["metadata"]["namespace"] in only)
        ]
        rows = await self.rows(read)
        assert [(row.uid, row.resource_version) for row in rows] == [
            (each["metadata"]["uid"], each["metadata"]["resourceVersion"]) for each in wanted
        ]
        digest = self.run.repository.files.sealer.digest
        for row, each in zip(rows, wanted, strict=True):
            kept = {key: value for key, value in each["metadata"].items() if key not in ("uid", "resourceVersion")}
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": kept, "data": each["data"]}
            assert row.body.digest == digest(compact(body).encode())
        assert read.objects == len(rows)
        assert read.complete


@pytest.fixture
async def reading(server: Server, api: KubeApi, run: Run) -> Reading:
    return Reading(server, api, run)


def some_names(count: int) -> list[Name]:
    return [(NAMESPACES[n % 3], f"cm-{n:05}") for n in range(count)]


@pytest.fixture
def filled(server: Server) -> str:
    """The revision at which the server has `OBJECTS` objects."""
    return server.write({name: f"value {name}" for name in some_names(OBJECTS)})


async def test_a_whole_reading_stores_the_list_in_the_one_order(reading: Reading, filled: str) -> None:
    read = await reading.read(filled)
    await reading.assert_is(read, filled)
    assert len(read.segments) > 1
    assert reading.server.count(resourceVersionMatch="Exact") == 1
    assert reading.server.count(metadata="") > 1, "several pages"


@pytest.mark.parametrize("changed", [0, 1, 3, 40, 300, OBJECTS])
async def test_taking_over_gives_what_a_whole_reading_gives(reading: Reading, filled: str, changed: int) -> None:
    first = await reading.read(filled)
    draw = random.Random(changed)
    changes: dict[Name, str | None] = {}
    for name in draw.sample(some_names(OBJECTS), changed):
        # Some deleted, some changed, some deleted and made anew under the old name, some inserted beside them.
        changes[name] = draw.choice([None, f"changed {changed}"])
        if draw.random() < 0.3:
            changes[name[0], name[1] + "-beside"] = "inserted"
    revision = reading.server.write(changes) if changes else filled
    again = draw.sample(sorted(name for name, value in changes.items() if value is None), min(3, changed // 10))
    if again:
        revision = reading.server.write(dict.fromkeys(again, "made anew"))
    read = await reading.read(revision, Base(first.segments, take_over=True))
    await reading.assert_is(read, revision)
    if changed == 0:
        assert read.segments == first.segments
        assert reading.server.count(metadata="") == 0, "metadata is enough"
    elif changed <= 40:
        assert 0 < reading.server.singles <= 2 * changed
        assert read.taken_over >= OBJECTS - 2 * changed
        assert reading.server.count(metadata="") == reading.server.singles, "no whole list"
    else:
        assert reading.server.singles <= 0.05 * 1.3 * OBJECTS
        assert reading.server.count(metadata="") > reading.server.singles, "the whole list from there on"


async def test_many_changes_in_one_namespace_cost_a_list_of_that_namespace(reading: Reading, server: Server) -> None:
    small = [("a-small", f"cm-{n:03}") for n in range(100)]
    filled = server.write(dict.fromkeys([*some_names(OBJECTS), *small], "old"))
    first = await reading.read(filled)
    changes: dict[Name, str | None] = dict.fromkeys(small[10:70:2], "new")
    changes |= {small[71]: None, ("a-small", "cm-050-beside"): "inserted", ("a", "cm-00003"): "alone"}
    revision = server.write(changes)
    read = await reading.read(revision, Base(first.segments, take_over=True))
    await reading.assert_is(read, revision)
    assert server.singles == 1
    assert server.count(metadata="") - server.singles <= 3, "a few pages of the one namespace"


async def test_a_base_that_may_not_be_taken_over_is_read_whole_and_shares_its_equal_segments(
    reading: Reading, filled: str
) -> None:
    first = await reading.read(filled)
    read = await reading.read(filled, Base(first.segments, take_over=False))
    await reading.assert_is(read, filled)
    assert read.segments == first.segments
    assert read.taken_over == 0


async def test_a_list_in_another_order_is_sorted_before_it_is_stored(reading: Reading, filled: str) -> None:
    first = await reading.read(filled)
    reading.server.shuffled = True
    await reading.assert_is(await reading.read(filled), filled)
    await reading.assert_is(await reading.read(filled, Base(first.segments, take_over=True)), filled)


async def test_the_newest_list_serves_where_it_is_the_one_at_x(reading: Reading, filled: str) -> None:
    first = await reading.read(filled)
    base = Base(first.segments, take_over=True)
    await reading.assert_is(await reading.read(filled, base, count=OBJECTS), filled)
    asked = [(each.get("resourceVersion"), each.get("limit")) for each in reading.server.requests]
    assert asked == [(None, "1"), (None, None)], "one object first, then the list in one piece"
    newer = reading.server.write({("a", "cm-00000"): "later"})
    await reading.assert_is(await reading.read(filled, base, count=OBJECTS), filled)
    assert [each.get("resourceVersion") for each in reading.server.requests][:2] == [None, filled]
    assert newer != filled


async def test_lists_per_namespace_stand_in_the_one_order(reading: Reading, filled: str) -> None:
    namespaces = ("a-b", "a")
    keep = ObjectFilter(NamespaceFilter(namespaces), None)
    first = await reading.read(filled, namespaces=namespaces, keep=keep)
    await reading.assert_is(first, filled, only=namespaces)
    revision = reading.server.write({("a", "new"): "1", ("a-b", "cm-00001"): None})
    read = await reading.read(revision, Base(first.segments, take_over=True), namespaces=namespaces, keep=keep)
    await reading.assert_is(read, revision, only=namespaces)


async def test_labels_are_matched_on_metadata_as_on_objects(reading: Reading, filled: str) -> None:
    either = parse_selectors(["parity=even", "parity in (even)"])
    first = await reading.read(filled, keep=ObjectFilter(NamespaceFilter(), either))
    await reading.assert_is(first, filled, parity="even")
    revision = reading.server.write({("a", "cm-00000"): "1", ("a", "cm-00003"): "2", ("a", "cm-00006"): "3"})
    keep = ObjectFilter(NamespaceFilter(), either)
    read = await reading.read(revision, Base(first.segments, take_over=True), keep=keep)
    await reading.assert_is(read, revision, parity="even")
    assert keep.skipped["no label selector matches"] == OBJECTS - read.objects


async def test_a_namespace_that_may_not_be_read_is_named_and_the_others_are_stored(
    reading: Reading, filled: str
) -> None:
    reading.server.denied = {"a"}
    read = await reading.read(filled, namespaces=("a-b", "a", "b"), skip_denied=True)
    await reading.assert_is(read, filled, only=("a-b", "b"))
    assert list(read.denied) == ["a"]
    assert "list configmaps" in read.denied["a"]
    with pytest.raises(KubeForbidden):
        await reading.read(filled, namespaces=("a",))


async def test_objects_by_name_are_read_as_far_as_they_exist(reading: Reading, filled: str) -> None:
    keep = ObjectFilter(NamespaceFilter(), None)
    names = [("a", "cm-00003"), ("a", "gone"), ("b", "cm-00002"), ("a", "cm-00000")]
    read = await KindReading(reading.reader, KIND, keep, revision=filled).read_named(names)
    assert [(row.namespace, row.name) for row in await reading.rows(read)] == [
        ("a", "cm-00000"),
        ("a", "cm-00003"),
        ("b", "cm-00002"),
    ]


async def test_a_base_whose_list_is_gone_is_said_to_be_damaged(reading: Reading, filled: str) -> None:
    first = await reading.read(filled)
    await reading.run.repository.store.delete([f"lists/{first.segments[0].file.id}.parquet"])  # type: ignore[list-item]
    with pytest.raises(Damaged):
        await reading.read(filled, Base(first.segments, take_over=True))


async def test_no_byte_of_the_budget_is_lost_after_readings_that_succeed_or_fail(reading: Reading, filled: str) -> None:
    first = await reading.read(filled)
    revision = reading.server.write(dict.fromkeys(some_names(OBJECTS), "all changed"))
    await reading.read(revision, Base(first.segments, take_over=True))
    reading.server.denied = {"b"}
    with pytest.raises(KubeForbidden):
        await reading.read(revision, namespaces=("a-b", "a", "b"))
    assert reading.reader.budget.in_flight == 0
