"""Answers like an API server with any number of objects, made up page by page: for memory tests at sizes etcd refuses.

Real are discovery, TLS with client certificates, lists whole or as PartialObjectMetadata with limit, continue token and
exact revision, single objects by field selector, and writes of ConfigMaps in kube-system (so that a marker can stand).
Whatever else is asked for is refused, never guessed. An exact list of any revision but the newest is 410 Expired, as
after a compaction. Nothing is kept but what was written.
"""

import base64
import binascii
import hashlib
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
from aiohttp import web

from strongroom.testbed import certificates

VERSION: Final = "v1.37.2"
CREATED: Final = "2026-01-01T00:00:00Z"
SYSTEM_NAMESPACE: Final = "kube-system"
FIRST_REVISION: Final = 1_000_000  # of the whole cluster; object *n* was written at n + 1, below it
CHUNK_ITEMS: Final = 256  # of a page that are made at once: the answer streams, whatever its size

_AGGREGATED: Final = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_PARAMETERS: Final = frozenset(("limit", "continue", "resourceVersion", "resourceVersionMatch", "fieldSelector"))


@dataclass(frozen=True, slots=True)
class ReplayedKind:
    """A kind with *namespaces* times *each* objects (cluster-scoped: *namespaces* is 0 and *each* is all).

    *content* gives for the number of an object (0 to count - 1, in list order) what follows its metadata: JSON members
    with a comma before each, as `,"data":{"a":"b"}`.
    """

    group: str
    version: str
    kind: str
    plural: str
    namespaces: int
    each: int
    content: Callable[[int], bytes] = lambda _: b""
    custom: bool = False

    @property
    def count(self) -> int:
        """How many objects there are."""
        return self.each * (self.namespaces or 1)

    @property
    def api_version(self) -> str:
        """`v1`, or `group/version`."""
        return f"{self.group}/{self.version}" if self.group else self.version


def namespace_name(number: int) -> str:
    """Return the name of the namespace *number*: names sort as numbers do."""
    return f"team-{number:05d}"


def object_name(kind: ReplayedKind, number: int) -> str:
    """Return the name of the object *number* of *kind*."""
    return f"{kind.kind.lower()}-{number:08d}"


class ReplayServer:
    """The server; `serve` runs it. *namespaces* is how many there are beside kube-system."""

    def __init__(self, kinds: Sequence[ReplayedKind], namespaces: int) -> None:
        namespaced = [(k.group, k.plural) for k in kinds]
        assert len(set(namespaced)) == len(namespaced)
        self._namespaces = namespaces
        self._kinds = {
            (kind.group, kind.plural): kind
            for kind in (
                ReplayedKind("", "v1", "Namespace", "namespaces", 0, namespaces, _active),
                # What every API server has and a backup asks for, without objects here.
                ReplayedKind("", "v1", "ConfigMap", "configmaps", 1, 0),
                ReplayedKind("", "v1", "Pod", "pods", 1, 0),
                ReplayedKind("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", 1, 0),
                ReplayedKind("", "v1", "PersistentVolume", "persistentvolumes", 0, 0),
                ReplayedKind("apiregistration.k8s.io", "v1", "APIService", "apiservices", 0, 0),
                ReplayedKind(
                    "apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", 0, 0
                ),
                *kinds,
            )
        }
        self._revision = FIRST_REVISION
        self._written: dict[str, dict[str, Any]] = {}  # ConfigMaps of kube-system by name
        self.requests = 0

    def application(self) -> web.Application:
        """Return the server as an aiohttp application."""
        application = web.Application(client_max_size=4 * 1024 * 1024)
        routes = application.router
        routes.add_get("/version", self._version)
        routes.add_get("/api", self._core_groups)
        routes.add_get("/apis", self._named_groups)
        routes.add_get("/api/v1/{plural}", self._list)
        routes.add_get("/apis/{group}/{version}/{plural}", self._list)
        routes.add_get("/api/v1/namespaces/{namespace}/{plural}", self._list)
        routes.add_get("/apis/{group}/{version}/namespaces/{namespace}/{plural}", self._list)
        path = f"/api/v1/namespaces/{SYSTEM_NAMESPACE}/configmaps"
        routes.add_post(path, self._create)
        routes.add_patch(path + "/{name}", self._patch)
        routes.add_route("*", "/{rest:.*}", _not_found)
        return application

    # Discovery

    async def _version(self, _: web.Request) -> web.Response:
        return _json({"major": "1", "minor": "37", "gitVersion": VERSION})

    async def _core_groups(self, _: web.Request) -> web.Response:
        return self._groups([""])

    async def _named_groups(self, _: web.Request) -> web.Response:
        return self._groups(sorted({group for group, _ in self._kinds if group}))

    def _groups(self, names: Sequence[str]) -> web.Response:
        items = []
        for name in names:
            kinds = [kind for kind in self._kinds.values() if kind.group == name]
            versions = [
                {"version": version, "freshness": "Current", "resources": [_resource(k) for k in kinds]}
                for version in sorted({kind.version for kind in kinds})
            ]
            items.append({"metadata": {"name": name}, "versions": versions})
        document = {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "items": items}
        return _json(document, content_type=_AGGREGATED)

    # Lists

    async def _list(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        where = request.match_info
        kind = self._kinds.get((where.get("group", ""), where["plural"]))
        if kind is None or where.get("version", "v1") != kind.version:
            return await _not_found(request)
        if unknown := request.query.keys() - _PARAMETERS:
            return _status(400, "BadRequest", f"the replaying server knows no {sorted(unknown)}")
        revision = request.query.get("resourceVersion")
        if revision is not None and request.query.get("resourceVersionMatch") != "Exact":
            return _status(400, "BadRequest", "the replaying server lists exactly, or what is newest")
        if revision is not None and int(revision) > self._revision:
            message = f"Too large resource version: {revision}, current: {self._revision}"
            return _status(504, "Timeout", message, cause="ResourceVersionTooLarge")
        wanted = self._chosen(kind, where.get("namespace"), request.query.get("fieldSelector", ""))
        if wanted is None:
            return _status(400, "BadRequest", "the only field selector here is metadata.name=NAME in one namespace")
        start = 0
        if token := request.query.get("continue"):
            try:
                revision, start = _read_token(token)
            except ValueError:
                return _status(400, "BadRequest", "continue key is not valid")
        if revision is not None and revision != str(self._revision):
            return _status(410, "Expired", f"The resourceVersion {revision} is too old")
        limit = int(request.query.get("limit", "0")) or len(wanted)
        metadata_only = "PartialObjectMetadataList" in request.headers.get("Accept", "")
        return await self._answer(request, kind, wanted, start, min(len(wanted), start + limit), metadata_only)

    def _chosen(self, kind: ReplayedKind, namespace: str | None, selector: str) -> "range | _Written | None":
        """Return which objects are meant, None for a selector that nobody here understands."""
        name = selector.removeprefix("metadata.name=") if selector else ""
        if selector and (name == selector or "," in name or (kind.namespaces and namespace is None)):
            return None
        written = (kind.group, kind.plural) == ("", "configmaps") and namespace in (None, SYSTEM_NAMESPACE)
        if written and (self._written or namespace is not None):
            chosen = [each for key, each in sorted(self._written.items()) if name in ("", key)]
            # kube-system comes before team-…: what was written stands first.
            return _Written(chosen, range(kind.count if namespace is None else 0))
        if kind.plural == "namespaces" and name == SYSTEM_NAMESPACE:
            return _Written([_system_namespace()], range(0))
        if kind.plural == "namespaces" and not name:
            return _Written([_system_namespace()], range(kind.count))
        numbers = range(kind.count)
        if namespace is not None:
            at = _number_of(namespace, "team-", kind.namespaces)
            numbers = range(at * kind.each, (at + 1) * kind.each) if at is not None else range(0)
        if name:
            stem = "team-" if kind.plural == "namespaces" else f"{kind.kind.lower()}-"
            found = _number_of(name, stem, kind.count)
            return range(found, found + 1) if found is not None and found in numbers else range(0)
        return numbers

    async def _answer(
        self,
        request: web.Request,
        kind: ReplayedKind,
        wanted: "range | _Written",
        start: int,
        stop: int,
        metadata_only: bool,
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        metadata: dict[str, Any] = {"resourceVersion": str(self._revision)}
        if stop < len(wanted):
            metadata |= {"continue": _token(self._revision, stop), "remainingItemCount": len(wanted) - stop}
        list_kind = "PartialObjectMetadataList" if metadata_only else f"{kind.kind}List"
        api_version = "meta.k8s.io/v1" if metadata_only else kind.api_version
        after = b""
        head = f'{{"kind":"{list_kind}","apiVersion":"{api_version}",'.encode()
        if kind.custom and not metadata_only:  # as the real server: behind the items
            after = b',"metadata":' + msgspec.json.encode(metadata)
        else:
            head += b'"metadata":' + msgspec.json.encode(metadata) + b","
        await response.write(head + b'"items":[')
        comma = b""
        for chunk in _chunks(self._items(kind, wanted, start, stop, metadata_only)):
            await response.write(comma + b",".join(chunk))
            comma = b","
        await response.write(b"]" + after + b"}")
        await response.write_eof()
        return response

    def _items(
        self, kind: ReplayedKind, wanted: "range | _Written", start: int, stop: int, metadata_only: bool
    ) -> Iterator[bytes]:
        numbers = wanted
        if isinstance(wanted, _Written):
            for each in wanted.objects[start:stop]:
                yield msgspec.json.encode({"metadata": each["metadata"]} if metadata_only else each)
            numbers = wanted.numbers
            start, stop = max(0, start - len(wanted.objects)), max(0, stop - len(wanted.objects))
        assert isinstance(numbers, range)
        before = b"{"
        if metadata_only:
            before = b'{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1",'
        elif kind.custom:
            before = f'{{"apiVersion":"{kind.api_version}","kind":"{kind.kind}",'.encode()
        for number in numbers[start:stop]:
            rest = b"" if metadata_only else kind.content(number)
            yield b'%b"metadata":%b%b}' % (before, _metadata(kind, number), rest)

    # Writes of ConfigMaps in kube-system

    async def _create(self, request: web.Request) -> web.Response:
        body = msgspec.json.decode(await request.read())
        name = body["metadata"]["name"]
        if name in self._written:
            return _status(409, "AlreadyExists", f'configmaps "{name}" already exists')
        metadata = {**body["metadata"], "namespace": SYSTEM_NAMESPACE, "uid": _uid("written", len(self._written))}
        self._written[name] = {**body, "metadata": {**metadata, "creationTimestamp": CREATED}}
        return _json(self._wrote(name), status=201)

    async def _patch(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in self._written:
            return _status(404, "NotFound", f'configmaps "{name}" not found')
        patch = msgspec.json.decode(await request.read())
        if request.content_type != "application/merge-patch+json" or patch.keys() != {"data"}:
            return _status(415, "UnsupportedMediaType", "the replaying server takes merge patches of `data` alone")
        self._written[name]["data"] = {**self._written[name].get("data", {}), **patch["data"]}
        return _json(self._wrote(name))

    def _wrote(self, name: str) -> Mapping[str, Any]:
        self._revision += 1
        self._written[name]["metadata"]["resourceVersion"] = str(self._revision)
        return self._written[name]


@asynccontextmanager
async def serve(kinds: Sequence[ReplayedKind], namespaces: int, folder: Path) -> AsyncIterator[ReplayServer]:
    """Run a server on a free port of loopback, with TLS; `kubeconfig` in *folder* (mode 0600) then leads to it."""
    authority = certificates.make_authority("strongroom-replay")
    certificates.make_server(authority, "replay", ("127.0.0.1",)).write(folder, "server")
    (folder / "ca.crt").write_bytes(authority.certificate)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "ca.crt"))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    server = ReplayServer(kinds, namespaces)
    runner = web.AppRunner(server.application(), access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        port = runner.addresses[0][1]
        client = certificates.make_client(authority, "replay-admin", ("system:masters",))
        document = certificates.kubeconfig(f"https://127.0.0.1:{port}", authority.certificate, client)
        certificates.write_private(folder / "kubeconfig", document)
        yield server
    finally:
        await runner.cleanup()


@dataclass(frozen=True, slots=True)
class _Written:
    """Objects that were written, and behind them the made-up ones of *numbers*."""

    objects: Sequence[Mapping[str, Any]]
    numbers: range

    def __len__(self) -> int:
        return len(self.objects) + len(self.numbers)


def _active(_: int) -> bytes:
    return b',"spec":{"finalizers":["kubernetes"]},"status":{"phase":"Active"}'


def _system_namespace() -> dict[str, Any]:
    metadata = {"name": SYSTEM_NAMESPACE, "uid": _uid("system", 0), "resourceVersion": "1"}
    return {"metadata": {**metadata, "creationTimestamp": CREATED}, "status": {"phase": "Active"}}


def _metadata(kind: ReplayedKind, number: int) -> bytes:
    """Return the metadata of one object, in the server's own order of members."""
    name = namespace_name(number) if kind.plural == "namespaces" else object_name(kind, number)
    where = f'"namespace":"{namespace_name(number // kind.each)}",' if kind.namespaces else ""
    second = f"{number // 60 % 60:02d}:{number % 60:02d}"
    return (
        f'{{"name":"{name}",{where}"uid":"{_uid(kind.plural, number)}","resourceVersion":"{number + 1}",'
        f'"creationTimestamp":"2026-01-01T00:{second}Z","labels":{{"app":"app-{number % 97}"}},'
        f'"managedFields":[{{"manager":"deployer","operation":"Update","apiVersion":"{kind.api_version}",'
        f'"time":"2026-01-01T00:{second}Z","fieldsType":"FieldsV1","fieldsV1":{{"f:metadata":{{"f:labels":'
        f'{{".":{{}},"f:app":{{}}}}}},"f:data":{{".":{{}},"f:config":{{}}}}}}}}]}}'
    ).encode()


def _uid(plural: str, number: int) -> str:
    digits = hashlib.blake2b(f"{plural}/{number}".encode(), digest_size=16).hexdigest()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _number_of(name: str, stem: str, count: int) -> int | None:
    digits = name.removeprefix(stem)
    if digits == name or not digits.isdigit():
        return None
    return int(digits) if int(digits) < count else None


def _token(revision: int, start: int) -> str:
    return base64.urlsafe_b64encode(f"{revision}:{start}".encode()).decode()


def _read_token(token: str) -> tuple[str, int]:
    try:
        revision, _, start = base64.urlsafe_b64decode(token).decode("ascii").partition(":")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise ValueError("not one of ours") from error
    return revision, int(start)


def _chunks(items: Iterator[bytes]) -> Iterator[list[bytes]]:
    chunk: list[bytes] = []
    size = 0
    for item in items:
        chunk.append(item)
        size += len(item)
        if len(chunk) == CHUNK_ITEMS or size > 1024 * 1024:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _resource(kind: ReplayedKind) -> dict[str, Any]:
    return {
        "resource": kind.plural,
        "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
        "scope": "Namespaced" if kind.namespaces else "Cluster",
        "singularResource": kind.kind.lower(),
        "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
    }


def _json(document: Mapping[str, Any], *, status: int = 200, content_type: str = "application/json") -> web.Response:
    return web.Response(body=msgspec.json.encode(document), status=status, headers={"Content-Type": content_type})


def _status(code: int, reason: str, message: str, *, cause: str = "") -> web.Response:
    document = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code}
    details = {"details": {"causes": [{"reason": cause, "message": message}]}} if cause else {}
    return _json({**document, **details, "reason": reason, "message": message}, status=code)


async def _not_found(request: web.Request) -> web.Response:
    return _status(404, "NotFound", f"the replaying server does not serve {request.method} {request.path}")
