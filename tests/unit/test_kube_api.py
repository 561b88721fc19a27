"""Lists, single objects, writes and watches against a small server that answers as an API server would.

The server is scripted by each test; what the real one does is asserted in tests/integration/test_kube_access.py.
"""

import asyncio
import gzip
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.config import ClusterAccess
from strongroom.dataplane.kube.credentials import Credentials, NoCredentials
from strongroom.dataplane.kube.errors import (
    KubeAlreadyExists,
    KubeConflict,
    KubeExpired,
    KubeForbidden,
    KubeNotFound,
    KubeProtocolError,
    KubeServerError,
    KubeTooLargeResourceVersion,
    KubeTooManyRequests,
    KubeUnauthorized,
    KubeUnreachable,
)
from strongroom.dataplane.kube.kinds import Kind
from strongroom.dataplane.kube.pages import PAGE_MAX_ITEMS, PAGE_TARGET_BYTES, AdaptiveLimit, Page
from strongroom.dataplane.kube.transport import RetryPolicy
from strongroom.testbed.faults import CutBody, DropReply, DropRequest, FaultProxy, Rule, Status, TooMany

CONFIG_MAPS = Kind("", "v1", "ConfigMap", "configmaps", namespaced=True, verbs=frozenset({"list"}))
WIDGETS = Kind("example.org", "v1", "Widget", "widgets", namespaced=True, verbs=frozenset({"list"}))
QUICK = RetryPolicy(attempts=4, total_s=5.0, base_s=0.001, cap_s=0.002)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Connect = Callable[..., Awaitable[KubeApi]]


def answer(document: Any, status: int = 200, **headers: str) -> web.Response:
    return web.json_response(document, status=status, headers=headers)


def refusal(code: int, reason: str, **more: Any) -> web.Response:
    return answer({"kind": "Status", "code": code, "reason": reason, "message": f"{reason} it is", **more}, code)


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Start a server around a handler and return a KubeApi to it."""
    open_: list[Any] = []

    async def start(handler: Handler, *, credentials: Credentials | None = None, **options: Any) -> KubeApi:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handler)
        server = TestServer(app)
        await server.start_server()
        access = ClusterAccess(str(server.make_url("")).rstrip("/"), None, credentials or NoCredentials())
        api = KubeApi(access, **{"retry": QUICK, **options})
        await api.__aenter__()
        open_.extend([server, api])
        return api

    yield start
    for one in reversed(open_):
        await one.close()


def config_maps(count: int, size: int = 10) -> list[dict[str, Any]]:
    return [{"metadata": {"name": f"cm-{n:05}"}, "data": {"k": "x" * size}} for n in range(count)]


def paging(items: list[dict[str, Any]], revision: str = "7", *, token_last: bool = False) -> tuple[Handler, list[Any]]:
    """Return a handler that pages *items* as an API server does, and the queries it got."""
    queries: list[dict[str, str]] = []

    async def handle(request: web.Request) -> web.Response:
        queries.append(dict(request.query))
        start, limit = int(request.query.get("continue", "0")), int(request.query.get("limit", "500"))
        end = start + limit
        meta: dict[str, Any] = {"resourceVersion": revision}
        if end < len(items):
            meta |= {"continue": str(end), "remainingItemCount": len(items) - end}
        body: dict[str, Any] = {"kind": "WidgetList", "apiVersion": "v1"}
        if token_last:  # as lists of custom resources come
            body |= {"items": items[start:end], "metadata": meta}
        else:
            body |= {"metadata": meta, "items": items[start:end]}
        return answer(body)

    return handle, queries


@pytest.mark.parametrize("token_last", [False, True])
async def test_a_list_gives_every_object_once_at_the_revision_asked_for(connect: Connect, token_last: bool) -> None:
    items = config_maps(120)
    handler, queries = paging(items, token_last=token_last)
    api = await connect(handler)
    pages = [page async for page in api.list_pages(CONFIG_MAPS, revision="7", limit=50, labels="a=b", fields="c=d")]
    assert [json.loads(bytes(item)) for page in pages for item in page.items] == items
    assert [(len(page.items), page.revision, page.remaining) for page in pages] == [
        (50, "7", 70),
        (50, "7", 20),
        (20, "7", None),
    ]
    selectors = {"labelSelector": "a=b", "fieldSelector": "c=d", "limit": "50"}
    # A continue token carries the revision; the server refuses both together.
    assert queries == [
        {**selectors, "resourceVersion": "7", "resourceVersionMatch": "Exact"},
        {**selectors, "continue": "50"},
        {**selectors, "continue": "100"},
    ]
    assert api.requests == 3
    assert api.bytes_read == sum(page.size for page in pages)


async def test_a_plain_list_says_the_revision_that_its_first_page_had(connect: Connect) -> None:
    handler, queries = paging(config_maps(3))
    api = await connect(handler)
    assert [page.revision async for page in api.list_pages(CONFIG_MAPS, limit=2)] == ["7", "7"]
    assert "resourceVersion" not in queries[0]


async def test_metadata_alone_is_asked_for_by_the_accept_header(connect: Connect) -> None:
    accepted: list[str] = []

    async def handle(request: web.Request) -> web.Response:
        accepted.append(request.headers["Accept"])
        return answer({"kind": "PartialObjectMetadataList", "metadata": {"resourceVersion": "7"}, "items": None})

    api = await connect(handle)
    [page] = [page async for page in api.list_pages(CONFIG_MAPS, metadata_only=True)]
    assert page.items == []
    assert accepted == ["application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"]


async def test_an_answer_of_another_revision_than_asked_is_refused(connect: Connect) -> None:
    api = await connect(paging(config_maps(3), revision="8")[0])
    with pytest.raises(KubeProtocolError, match="at revision 7 was answered at 8"):
        [page async for page in api.list_pages(CONFIG_MAPS, revision="7")]
    with pytest.raises(KubeProtocolError):
        await api.get_at(CONFIG_MAPS, "cm-00000", "default", "7")


async def test_pages_of_different_revisions_are_refused(connect: Connect) -> None:
    revisions = iter(["7", "7", "8"])

    async def handle(request: web.Request) -> web.Response:
        token = str(int(request.query.get("continue", "0")) + 1)
        return answer(
            {"kind": "List", "metadata": {"resourceVersion": next(revisions), "continue": token}, "items": [{}]}
        )

    api = await connect(handle)
    pages = api.list_pages(CONFIG_MAPS)
    assert [(await anext(pages)).revision for _ in range(2)] == ["7", "7"]
    with pytest.raises(KubeProtocolError, match="at revision 7 was answered at 8"):
        await anext(pages)


async def test_an_expired_continue_token_ends_the_list_and_the_offered_inconsistent_one_is_never_used(
    connect: Connect,
) -> None:
    tokens: list[str] = []

    async def handle(request: web.Request) -> web.Response:
        tokens.append(request.query.get("continue", ""))
        if tokens[-1]:
            return refusal(410, "Expired", metadata={"continue": "inconsistent"})
        return answer({"kind": "List", "metadata": {"resourceVersion": "7", "continue": "next"}, "items": [{}]})

    api = await connect(handle)
    with pytest.raises(KubeExpired):
        [page async for page in api.list_pages(CONFIG_MAPS, revision="7")]
    assert tokens == ["", "next"]


async def test_a_list_that_does_not_advance_is_refused(connect: Connect) -> None:
    async def handle(_: web.Request) -> web.Response:
        return answer({"kind": "List", "metadata": {"resourceVersion": "7", "continue": "same"}, "items": []})

    api = await connect(handle)
    with pytest.raises(KubeProtocolError, match="does not advance"):
        [page async for page in api.list_pages(CONFIG_MAPS)]


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"kind": "Status"}', b'{"kind": "ConfigMap"}', b'{"kind":"List","items":3}']
)
async def test_what_is_no_list_is_refused(connect: Connect, body: bytes) -> None:
    async def handle(_: web.Request) -> web.Response:
        return web.Response(body=body)

    api = await connect(handle)
    with pytest.raises(KubeProtocolError):
        [page async for page in api.list_pages(CONFIG_MAPS)]


@pytest.mark.parametrize("revision", ["0", ""])
async def test_no_list_is_exact_at_revision_zero(connect: Connect, revision: str) -> None:
    api = await connect(paging([])[0])
    with pytest.raises(ValueError, match="no revision"):
        [page async for page in api.list_pages(CONFIG_MAPS, revision=revision)]


async def test_the_page_limit_starts_small_and_aims_at_its_bytes(connect: Connect) -> None:
    handler, queries = paging(config_maps(3000, size=10_000))
    api = await connect(handler)
    sizes = [page.size async for page in api.list_pages(CONFIG_MAPS)]
    limits = [int(query["limit"]) for query in queries]
    assert limits[:2] == [50, 400]
    assert abs(max(sizes) - PAGE_TARGET_BYTES) < PAGE_TARGET_BYTES / 10


@pytest.mark.parametrize(
    ("items", "size", "limit"),
    [(50, 50 * 1_000_000, 4), (50, 50 * 20_000_000, 1), (50, 50 * 10, 400), (0, 200, 50)],
)
def test_the_next_limit_follows_the_mean_size_and_never_jumps(items: int, size: int, limit: int) -> None:
    chooser = AdaptiveLimit()
    assert chooser(None) == 50
    assert chooser(Page("7", [None] * items, None, size, "t")) == limit  # type: ignore[list-item]
    for _ in range(9):
        largest = chooser(Page("7", [None] * 50, None, 50, "t"))  # type: ignore[list-item]
    assert largest == PAGE_MAX_ITEMS


async def test_one_object_at_a_revision_needs_only_a_list(connect: Connect) -> None:
    queries: list[tuple[str, dict[str, str]]] = []

    async def handle(request: web.Request) -> web.Response:
        queries.append((request.path, dict(request.query)))
        found = [{"metadata": {"name": "a"}}] if "name=a" in request.query["fieldSelector"] else []
        return answer({"kind": "ConfigMapList", "metadata": {"resourceVersion": "7"}, "items": found})

    api = await connect(handle)
    found = await api.get_at(CONFIG_MAPS, "a", "n", "7")
    assert found is not None
    assert json.loads(bytes(found)) == {"metadata": {"name": "a"}}
    assert await api.get_at(CONFIG_MAPS, "b", "n", "7") is None
    exact = {"resourceVersion": "7", "resourceVersionMatch": "Exact"}
    assert queries[0] == ("/api/v1/namespaces/n/configmaps", {"fieldSelector": "metadata.name=a", **exact})
    with pytest.raises(ValueError, match="namespaced"):
        await api.get_at(CONFIG_MAPS, "a", None, "7")


# Retries


@pytest.mark.parametrize("code", [429, 500, 503])
async def test_a_busy_or_failing_server_is_asked_again(connect: Connect, code: int) -> None:
    calls = 0

    async def handle(_: web.Request) -> web.Response:
        nonlocal calls
        calls += 1
        return refusal(code, "Busy") if calls < 3 else answer({"ok": True})

    api = await connect(handle)
    assert json.loads(await api.get_path("/x")) == {"ok": True}
    assert (api.requests, api.retries) == (3, 2)


@pytest.mark.parametrize(
    ("code", "reason", "more", "error"),
    [
        (429, "TooManyRequests", {}, KubeTooManyRequests),
        (500, "InternalError", {}, KubeServerError),
        (504, "Timeout", {"details": {"causes": [{"reason": "ResourceVersionTooLarge"}]}}, KubeTooLargeResourceVersion),
    ],
)
async def test_after_its_attempts_the_last_refusal_is_raised(
    connect: Connect, code: int, reason: str, more: dict[str, Any], error: type[Exception]
) -> None:
    async def handle(_: web.Request) -> web.Response:
        return refusal(code, reason, **more)

    api = await connect(handle)
    with pytest.raises(error, match=f"{reason} it is"):
        await api.get_path("/x")
    assert api.requests == QUICK.attempts


@pytest.mark.parametrize(
    ("code", "error"), [(401, KubeUnauthorized), (403, KubeForbidden), (404, KubeNotFound), (410, KubeExpired)]
)
async def test_a_refusal_that_another_try_cannot_change_is_raised_at_once(
    connect: Connect, code: int, error: type[Exception]
) -> None:
    async def handle(_: web.Request) -> web.Response:
        return refusal(code, "")

    api = await connect(handle)
    with pytest.raises(error):
        await api.get_path("/x")
    assert api.requests == 1


def test_the_wait_is_jitter_below_a_growing_bound_above_what_the_server_asks() -> None:
    policy = RetryPolicy(base_s=0.2, cap_s=10.0)
    assert [policy.wait(n, None, lambda: 1.0) for n in (1, 2, 3, 20)] == [0.2, 0.4, 0.8, 10.0]
    assert policy.wait(3, None, lambda: 0.0) == 0.0
    assert policy.wait(1, 7.0, lambda: 0.5) == 7.1


async def test_a_retry_after_is_waited_for_and_one_beyond_the_time_is_not(connect: Connect) -> None:
    asked: list[float] = []

    async def handle(request: web.Request) -> web.Response:
        asked.append(asyncio.get_running_loop().time())
        after = "1" if request.path == "/soon" else "3600"
        return answer({}, 429, **{"Retry-After": after}) if len(asked) == 1 else answer({})

    api = await connect(handle)
    await api.get_path("/soon")
    assert asked[1] - asked[0] >= 1.0
    asked.clear()
    with pytest.raises(KubeTooManyRequests) as raised:
        await api.get_path("/late")
    assert raised.value.retry_after_s == 3600
    assert len(asked) == 1


class Renewing:
    def __init__(self) -> None:
        self.tokens = 1

    async def authorization(self) -> str:
        return f"Bearer {self.tokens}"

    def renew(self) -> bool:
        self.tokens += 1
        return True


async def test_refused_credentials_are_renewed_once(connect: Connect) -> None:
    async def handle(request: web.Request) -> web.Response:
        wanted = "Bearer 2" if request.path == "/good" else "none"
        return answer({}) if request.headers["Authorization"] == wanted else refusal(401, "Unauthorized")

    credentials = Renewing()
    api = await connect(handle, credentials=credentials)
    await api.get_path("/good")
    with pytest.raises(KubeUnauthorized):
        await api.get_path("/bad")
    assert (credentials.tokens, api.requests) == (3, 4)


class Cluster:
    """Keeps objects by path, as much as the tests of lost messages need."""

    def __init__(self) -> None:
        self.objects: dict[str, Any] = {}
        self.writes: list[str] = []

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.writes.append(request.method)
        if request.method == "POST":
            document = json.loads(body)
            name = document["metadata"].get("name") or f"{document['metadata']['generateName']}{len(self.writes)}"
            path = f"{request.path}/{name}"
            if path in self.objects:
                return refusal(409, "AlreadyExists")
            self.objects[path] = document
            return answer(document, 201)
        if request.path not in self.objects:
            return refusal(404, "NotFound")
        if request.method == "DELETE":
            return answer(self.objects.pop(request.path))
        return answer(self.objects[request.path])


@pytest.fixture
async def cluster(connect: Connect) -> AsyncIterator[tuple[Cluster, FaultProxy, KubeApi]]:
    behind = Cluster()
    api = await connect(behind.handle)
    async with FaultProxy.for_store(api.server) as proxy:
        access = ClusterAccess(proxy.url, None, NoCredentials())
        async with KubeApi(access, retry=QUICK) as through:
            yield behind, proxy, through


BODY = {"metadata": {"name": "a"}}
PATH = "/api/v1/namespaces/n/configmaps/a"


async def test_a_create_whose_request_is_lost_is_carried_out_once(
    cluster: tuple[Cluster, FaultProxy, KubeApi],
) -> None:
    behind, proxy, api = cluster
    proxy.add(Rule(DropRequest(), times=2))
    await api.create(CONFIG_MAPS, BODY, "n", field_manager="strongroom")
    assert behind.writes == ["POST"]


@pytest.mark.parametrize("loss", [DropReply(), CutBody(3)])
async def test_a_create_whose_reply_is_lost_says_that_the_object_may_be_its_own(
    cluster: tuple[Cluster, FaultProxy, KubeApi], loss: DropReply | CutBody
) -> None:
    behind, proxy, api = cluster
    proxy.add(Rule(loss, times=1))
    with pytest.raises(KubeAlreadyExists) as raised:
        await api.create(CONFIG_MAPS, BODY, "n")
    assert raised.value.after_retry
    assert behind.writes == ["POST", "POST"]
    with pytest.raises(KubeAlreadyExists) as raised:
        await api.create(CONFIG_MAPS, BODY, "n")
    assert not raised.value.after_retry


async def test_a_create_under_a_generated_name_is_not_repeated_once_it_may_have_arrived(
    cluster: tuple[Cluster, FaultProxy, KubeApi],
) -> None:
    behind, proxy, api = cluster
    proxy.add(Rule(DropReply(), times=1))
    with pytest.raises(KubeUnreachable) as raised:
        await api.create(CONFIG_MAPS, {"metadata": {"generateName": "a-"}}, "n")
    assert raised.value.after_retry
    assert behind.writes == ["POST"]
    proxy.clear()
    proxy.add(Rule(TooMany(0), times=2))  # a 429 was certainly not carried out
    await api.create(CONFIG_MAPS, {"metadata": {"generateName": "a-"}}, "n")
    assert len(behind.objects) == 2


async def test_a_delete_whose_reply_is_lost_is_never_repeated_behind_our_back(
    cluster: tuple[Cluster, FaultProxy, KubeApi],
) -> None:
    _, proxy, api = cluster
    await api.create(CONFIG_MAPS, BODY, "n")
    proxy.add(Rule(DropReply(), method="DELETE", times=1))
    with pytest.raises(KubeNotFound) as raised:
        await api.delete(CONFIG_MAPS, "a", "n")
    assert raised.value.after_retry
    assert api.retries == 1


async def test_a_cut_answer_is_read_again_and_counts_as_one_object(
    cluster: tuple[Cluster, FaultProxy, KubeApi],
) -> None:
    _, proxy, api = cluster
    await api.create(CONFIG_MAPS, BODY, "n")
    proxy.add(Rule(CutBody(5), method="GET", times=2), Rule(Status(503), method="GET", times=1))
    assert json.loads(await api.get(CONFIG_MAPS, "a", "n")) == BODY
    assert api.retries == 3


async def test_a_server_that_is_gone_is_unreachable_and_nothing_was_sent(unused_tcp_port: int) -> None:
    access = ClusterAccess(f"http://127.0.0.1:{unused_tcp_port}", None, NoCredentials())
    async with KubeApi(access, retry=QUICK) as api:
        with pytest.raises(KubeUnreachable, match=str(unused_tcp_port)) as raised:
            await api.create(CONFIG_MAPS, {"metadata": {"generateName": "a-"}}, "n")
    assert not raised.value.after_retry
    assert api.retries == QUICK.attempts - 1


async def test_a_certificate_that_nobody_vouches_for_is_refused_at_once() -> None:
    async with FaultProxy("http://127.0.0.1:1", serve_tls=True) as proxy:
        access = ClusterAccess(proxy.url, ssl.create_default_context(), NoCredentials())
        async with KubeApi(access, retry=QUICK) as api:
            with pytest.raises(KubeUnreachable, match="certificate"):
                await api.get_path("/version")
            assert api.requests == 1


# Writes


async def test_writes_carry_their_parameters(connect: Connect) -> None:
    seen: list[tuple[str, str, dict[str, str], str, Any]] = []

    async def handle(request: web.Request) -> web.Response:
        kind = request.headers["Content-Type"]
        seen.append((request.method, request.path, dict(request.query), kind, json.loads(await request.read())))
        return answer({})

    api = await connect(handle)
    await api.create(CONFIG_MAPS, BODY, "n", field_manager="m", dry_run=True)
    await api.apply(CONFIG_MAPS, "a", "n", BODY, field_manager="m", force=True)
    await api.patch(WIDGETS, "a", "n", b'{"status":1}', subresource="status", field_manager="m")
    await api.patch(CONFIG_MAPS, "a", "n", [{"op": "test"}], "json")
    await api.replace(CONFIG_MAPS, "a", "n", BODY)
    await api.delete(CONFIG_MAPS, "a", "n", propagation="Foreground", uid="u", resource_version="7")
    options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Foreground"}
    widget = "/apis/example.org/v1/namespaces/n/widgets/a/status"
    assert seen == [
        ("POST", PATH[:-2], {"fieldManager": "m", "dryRun": "All"}, "application/json", BODY),
        ("PATCH", PATH, {"fieldManager": "m", "force": "true"}, "application/apply-patch+yaml", BODY),
        ("PATCH", widget, {"fieldManager": "m"}, "application/merge-patch+json", {"status": 1}),
        ("PATCH", PATH, {}, "application/json-patch+json", [{"op": "test"}]),
        ("PUT", PATH, {}, "application/json", BODY),
        ("DELETE", PATH, {}, "application/json", {**options, "preconditions": {"uid": "u", "resourceVersion": "7"}}),
    ]


@pytest.mark.parametrize("name", ["system:node", "ä b", "a%2Fb", "50%", "x?y#z", "a+b", "a/b", "a&b=c"])
async def test_a_name_arrives_as_it_is_in_the_path_and_in_a_selector(connect: Connect, name: str) -> None:
    seen: list[str] = []

    async def handle(request: web.Request) -> web.Response:
        assert request.raw_path.partition("?")[0].count("/") == (6 if request.query else 7)
        seen.append(request.query.get("fieldSelector") or request.path.rpartition("/widgets/")[2])
        return answer({"kind": "List", "metadata": {"resourceVersion": "7"}})

    api = await connect(handle)
    await api.get(WIDGETS, name, "n")
    await api.get_at(WIDGETS, name, "n", "7")
    escaped = name.replace("=", "\\=")
    assert seen == [name, f"metadata.name={escaped}"]


async def test_a_body_that_is_no_object_is_not_sent(connect: Connect) -> None:
    api = await connect(paging([])[0])
    with pytest.raises(ValueError, match="no JSON object"):
        await api.create(CONFIG_MAPS, b"{", "n")
    assert api.requests == 0


async def test_a_conflict_names_the_fields_of_other_managers(connect: Connect) -> None:
    cause = {"reason": "FieldManagerConflict", "field": ".spec.replicas", "message": 'conflict with "hpa"'}

    async def handle(_: web.Request) -> web.Response:
        return refusal(409, "Conflict", details={"causes": [cause]})

    api = await connect(handle)
    with pytest.raises(KubeConflict) as raised:
        await api.apply(CONFIG_MAPS, "a", "n", BODY, field_manager="m")
    assert raised.value.causes[0].field == ".spec.replicas"


# Compression


@pytest.mark.parametrize(("compression", "encoding"), [(True, "gzip"), (False, "identity"), (None, "gzip")])
async def test_compression_is_asked_for_as_chosen(connect: Connect, compression: bool | None, encoding: str) -> None:
    async def handle(request: web.Request) -> web.Response:
        assert request.headers["Accept-Encoding"] == encoding
        if encoding == "gzip":
            return web.Response(body=gzip.compress(b'{"x": 1}'), headers={"Content-Encoding": "gzip"})
        return web.Response(body=b'{"x": 1}')

    api = await connect(handle, compression=compression)
    assert await api.get_path("/x") == b'{"x": 1}'
    assert api.bytes_read == 8


# Watches


async def _watched(connect: Connect, chunks: list[bytes]) -> tuple[list[tuple[str, Any]], Exception | None]:
    async def handle(request: web.Request) -> web.StreamResponse:
        assert request.query["resourceVersion"] == "7"
        response = web.StreamResponse()
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
        if chunks[-1] == b"":
            request.transport.close()  # type: ignore[union-attr]
        return response

    api = await connect(handle)
    events: list[tuple[str, Any]] = []
    try:
        async for event in api.watch(CONFIG_MAPS, revision="7", timeout=5):
            events.append((event.type, json.loads(bytes(event.raw))))
    except Exception as error:
        return events, error
    return events, None


async def test_a_watch_gives_events_whole_however_they_are_cut(connect: Connect) -> None:
    large = {"data": "x" * 3_000_000}
    lines = b"".join(
        json.dumps({"type": type_, "object": object_}).encode() + b"\n"
        for type_, object_ in [("ADDED", {"n": 1}), ("MODIFIED", large), ("BOOKMARK", {"n": 3})]
    )
    events, error = await _watched(connect, [lines[:20], lines[20:25], lines[25:1_000_000], lines[1_000_000:]])
    assert error is None
    assert events == [("ADDED", {"n": 1}), ("MODIFIED", large), ("BOOKMARK", {"n": 3})]


async def test_a_watch_of_a_compacted_revision_is_expired(connect: Connect) -> None:
    status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
    line = json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"
    events, error = await _watched(connect, [line])
    assert events == []
    assert isinstance(error, KubeExpired)


async def test_a_watch_that_breaks_off_is_unreachable_after_what_arrived(connect: Connect) -> None:
    events, error = await _watched(connect, [b'{"type":"ADDED","object":{}}\n', b'{"type":', b""])
    assert events == [("ADDED", {})]
    assert isinstance(error, KubeUnreachable)


async def test_what_is_no_event_is_refused(connect: Connect) -> None:
    _, error = await _watched(connect, [b"surprise\n"])
    assert isinstance(error, KubeProtocolError)
