"""One cluster's API: exact lists page by page, single objects, writes, watches.

Objects go in and come out as JSON bytes; nothing here builds a dictionary of a list. Connections, retries and errors
are those of `transport.py`.
"""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeVar

import aiohttp
import msgspec

from strongroom.dataplane.kube.config import ClusterAccess, load_in_cluster, load_kubeconfig
from strongroom.dataplane.kube.errors import KubeExpired, KubeProtocolError, error_of_answer
from strongroom.dataplane.kube.exec import OUTPUT_BYTES, ExecResult, exec_in_container
from strongroom.dataplane.kube.kinds import Kind
from strongroom.dataplane.kube.pages import AdaptiveLimit, Page, decode_page
from strongroom.dataplane.kube.transport import CONNECTIONS, Call, RetryPolicy, Transport

JSON: Final = "application/json"
METADATA_LIST: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
WATCH_GRACE_SECONDS: Final = 15.0  # the server ends a watch by itself; this long after its time we count it as lost

PatchType = Literal["merge", "json", "strategic", "apply"]
_PATCH_CONTENT: Final[Mapping[str, str]] = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",  # JSON is YAML
}
Propagation = Literal["Foreground", "Background", "Orphan"]
Body = bytes | Mapping[str, Any] | list[Any]


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One change: *type* is ADDED, MODIFIED, DELETED or BOOKMARK (whose object carries a resourceVersion alone)."""

    type: str
    raw: msgspec.Raw


class _WatchLine(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw


class _Name(msgspec.Struct, frozen=True):
    name: str | None = None


class _Named(msgspec.Struct, frozen=True):
    metadata: _Name = _Name()


class _Code(msgspec.Struct, frozen=True):
    code: int = 500


_decode_watch_line = msgspec.json.Decoder(_WatchLine).decode
_decode_named = msgspec.json.Decoder(_Named).decode
_T = TypeVar("_T")


class KubeApi:
    """The API of one cluster, as an async context manager.

    Every method raises a `KubeError`: `KubeForbidden`, `KubeNotFound`, `KubeUnreachable`, … (errors.py).
    *compression* overrides what the kubeconfig and the address say (on, but off on loopback).
    """

    def __init__(
        self,
        access: ClusterAccess,
        *,
        retry: RetryPolicy | None = None,
        connections: int = CONNECTIONS,
        compression: bool | None = None,
        user_agent: str = "strongroom",
    ) -> None:
        self._transport = Transport(
            access, retry=retry, connections=connections, compression=compression, user_agent=user_agent
        )

    @classmethod
    def from_kubeconfig(
        cls,
        path: Path | None = None,
        context: str | None = None,
        *,
        retry: RetryPolicy | None = None,
        connections: int = CONNECTIONS,
        compression: bool | None = None,
    ) -> Self:
        """Return the API of a kubeconfig's *context*. Raises `KubeconfigInvalid`; connects to nothing yet."""
        access = load_kubeconfig(path, context)
        return cls(access, retry=retry, connections=connections, compression=compression)

    @classmethod
    def in_cluster(
        cls,
        *,
        retry: RetryPolicy | None = None,
        connections: int = CONNECTIONS,
        compression: bool | None = None,
    ) -> Self:
        """Return the API of the cluster whose pod we are in. Raises `KubeconfigInvalid` elsewhere."""
        return cls(load_in_cluster(), retry=retry, connections=connections, compression=compression)

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; `async with` does it too."""
        await self._transport.close()

    @property
    def server(self) -> str:
        """The API server's URL."""
        return self._transport.access.server

    @property
    def namespace(self) -> str:
        """The namespace of the kubeconfig's context, `default` where it names none."""
        return self._transport.access.namespace

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is unsafe about the connection (certificate not verified, plain HTTP), for the user to read."""
        return self._transport.access.warnings

    @property
    def requests(self) -> int:
        """Requests sent, retries included."""
        return self._transport.requests

    @property
    def bytes_read(self) -> int:
        """Bytes of all answers' bodies, decompressed."""
        return self._transport.bytes_read

    @property
    def retries(self) -> int:
        """Requests that were sent again after a failure."""
        return self._transport.retries

    # Reading

    async def list_pages(
        self,
        kind: Kind,
        *,
        namespace: str | None = None,
        revision: str | None = None,
        limit: int | Callable[[Page | None], int] | None = None,
        labels: str | None = None,
        fields: str | None = None,
        metadata_only: bool = False,
    ) -> AsyncGenerator[Page, None]:
        """Yield all objects of *kind*, page by page, all of one revision.

        With *revision* (a resourceVersion, never "0") they are as they stood exactly then; without, as they stand
        when the first page is answered, quorum-read. *labels* and *fields* are selectors in Kubernetes' syntax. With
        *metadata_only* each item is a PartialObjectMetadata. *limit* is a number of items or is called before each
        page with the page before (None at first); the default is a new `AdaptiveLimit`.

        Raises `KubeExpired` when the revision is compacted, also in mid-paging: what was yielded is then part of an
        older state and must not be mixed with a new list. Raises `KubeProtocolError` for pages that say different
        revisions, or another than the one asked for.
        """
        path = kind.path(namespace)
        next_limit = AdaptiveLimit() if limit is None else limit
        accept = METADATA_LIST if metadata_only else JSON
        selectors = _params(labelSelector=labels, fieldSelector=fields)
        exact = _exact(revision)
        page: Page | None = None
        while True:
            size = next_limit if isinstance(next_limit, int) else next_limit(page)
            params = {**selectors, "limit": str(size)}
            if page is not None:  # its items are the caller's now: a list in flight must not hold two pages
                page = Page(page.revision, [], page.remaining, page.size, page.continue_token)
            if page is None:
                params |= exact
            else:
                params["continue"] = page.continue_token
            answer = await self._transport.request_large(
                Call("list", "GET", path, kind.resource, params, accept=accept)
            )
            previous, page = page, decode_page(answer, path=path)
            del answer
            expected = previous.revision if previous is not None else revision
            if expected is not None and page.revision != expected:
                message = f"a list of {kind.resource} at revision {expected} was answered at {page.revision or 'none'}"
                raise KubeProtocolError(message, verb="list", path=path, resource=kind.resource)
            if previous is not None and page.continue_token == previous.continue_token:
                message = f"a list of {kind.resource} does not advance: the same continue token came twice"
                raise KubeProtocolError(message, verb="list", path=path, resource=kind.resource)
            del previous
            yield page
            if not page.continue_token:
                return

    async def get(
        self, kind: Kind, name: str, namespace: str | None = None, *, subresource: str | None = None
    ) -> bytes:
        """Return one object as it stands now. Needs the `get` permission; `get_at` does with `list`."""
        return await self._request("get", "GET", kind, kind.path(namespace, name, subresource))

    async def get_path(self, path: str, params: Mapping[str, str] | None = None, *, accept: str = JSON) -> bytes:
        """Return the answer to a GET of *path* (`/version`, `/apis`, …), whatever it is."""
        return await self._transport.request(Call("get", "GET", path, params=params or {}, accept=accept))

    async def get_at(
        self, kind: Kind, name: str, namespace: str | None, revision: str | None = None
    ) -> msgspec.Raw | None:
        """Return one object as it stood at *revision* (None: now), or None where it did not exist.

        It is a list with a field selector, so the `list` permission is enough. Raises as `list_pages` does.
        """
        if kind.namespaced and namespace is None:
            raise ValueError(f"{kind.name} is namespaced: {name!r} needs a namespace")
        path = kind.path(namespace)
        params = {"fieldSelector": f"metadata.name={_selector_value(name)}", **_exact(revision)}
        page = decode_page(await self._request("list", "GET", kind, path, params=params), path=path)
        if (revision is not None and page.revision != revision) or len(page.items) > 1 or page.continue_token:
            message = f"a list of the one {kind.resource} {name!r} gave {len(page.items)} objects at {page.revision}"
            raise KubeProtocolError(message, verb="list", path=path, resource=kind.resource)
        return page.items[0] if page.items else None

    async def watch(
        self,
        kind: Kind,
        *,
        namespace: str | None = None,
        revision: str,
        labels: str | None = None,
        fields: str | None = None,
        timeout: float = 300.0,
    ) -> AsyncGenerator[WatchEvent, None]:
        """Yield what changes after *revision*, bookmarks included, until *timeout* (seconds) has passed.

        It holds one of the connections as long as it runs. Raises `KubeExpired` when the revision is too old (list
        anew), `KubeUnreachable` when the connection breaks (watch again from the last object's resourceVersion).
        """
        path = kind.path(namespace)
        params = {
            "watch": "true",
            "resourceVersion": revision,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(max(1, round(timeout))),
            **_params(labelSelector=labels, fieldSelector=fields),
        }
        call = Call("watch", "GET", path, kind.resource, params, silence_s=timeout + WATCH_GRACE_SECONDS)
        response = await self._transport.stream(call)
        try:
            pending: list[bytes] = []  # aiohttp's own readline refuses lines longer than its buffer; objects may be
            async for chunk in response.content.iter_any():
                self._transport.bytes_read += len(chunk)
                head, *lines = chunk.split(b"\n")
                pending.append(head)
                for line in lines:
                    whole, pending = b"".join(pending), [line]
                    if whole:
                        yield _watch_event(whole, kind, path)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._transport.broken(call, error) from error
        finally:
            response.close()

    # Writing

    async def create(
        self,
        kind: Kind,
        body: Body,
        namespace: str | None = None,
        *,
        field_manager: str | None = None,
        dry_run: bool = False,
        name: str | None = None,
        subresource: str | None = None,
    ) -> bytes:
        """Create an object (or post to *name*'s *subresource*) and return it as the server stored it.

        Raises `KubeAlreadyExists`; with `after_retry` an earlier attempt of this very call may have made it: compare
        before calling it foreign. A body without `metadata.name` is not sent again once it may have arrived:
        `KubeUnreachable` or `KubeServerError` with `after_retry` then.
        """
        data = _encode(body)
        repeatable = subresource is not None or _decode(data, _decode_named).metadata.name is not None
        params = _write_params(field_manager, dry_run)
        path = kind.path(namespace, name, subresource)
        return await self._request("create", "POST", kind, path, params=params, body=data, repeatable=repeatable)

    async def apply(
        self,
        kind: Kind,
        name: str,
        namespace: str | None,
        body: Body,
        *,
        field_manager: str,
        force: bool = False,
        subresource: str | None = None,
        dry_run: bool = False,
    ) -> bytes:
        """Server-side apply *body* and return the object. Raises `KubeConflict`, whose causes name the fields that
        other managers own, unless *force*."""
        params = {**_write_params(field_manager, dry_run), "force": "true" if force else "false"}
        return await self._patch(kind, name, namespace, body, "apply", subresource, params)

    async def patch(
        self,
        kind: Kind,
        name: str,
        namespace: str | None,
        body: Body,
        type: PatchType = "merge",
        subresource: str | None = None,
        field_manager: str | None = None,
        *,
        dry_run: bool = False,
    ) -> bytes:
        """Patch an object and return it. Custom resources take no strategic patch."""
        params = _write_params(field_manager, dry_run)
        return await self._patch(kind, name, namespace, body, type, subresource, params)

    async def replace(
        self,
        kind: Kind,
        name: str,
        namespace: str | None,
        body: Body,
        *,
        subresource: str | None = None,
        field_manager: str | None = None,
        dry_run: bool = False,
    ) -> bytes:
        """Put *body* in the object's place and return it. Raises `KubeConflict` when its resourceVersion is old."""
        path = kind.path(namespace, name, subresource)
        params = _write_params(field_manager, dry_run)
        return await self._request("update", "PUT", kind, path, params=params, body=_encode(body))

    async def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str | None = None,
        *,
        propagation: Propagation | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
        grace_seconds: int | None = None,
    ) -> bytes:
        """Delete an object; return it (still there with finalizers) or a Status.

        With *uid* or *resource_version* only that very object: `KubeConflict` else. `KubeNotFound` with
        `after_retry` may mean that an earlier attempt of this call deleted it.
        """
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if propagation is not None:
            options["propagationPolicy"] = propagation
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        preconditions = _params(uid=uid, resourceVersion=resource_version)
        if preconditions:
            options["preconditions"] = preconditions
        return await self._request("delete", "DELETE", kind, kind.path(namespace, name), body=_encode(options))

    # Running

    async def exec(
        self,
        namespace: str,
        pod: str,
        container: str,
        command: Sequence[str],
        *,
        timeout: float,
        keep_bytes: int = OUTPUT_BYTES,
    ) -> ExecResult:
        """Run *command* (no shell) in a pod's *container*, without input, and return its exit code and output.

        At most *keep_bytes* of the end of each stream are kept. It is never begun twice. Raises `KubeExecTimeout`
        after *timeout* seconds (the command is left to itself), `KubeExecFailed` where it could not be run,
        `KubeNotFound` and `KubeBadRequest` for a pod or container that is not there, `KubeForbidden` without the
        permissions `get` and `create` on pods/exec, `KubeUnreachable` with *after_retry* where its end was lost.
        """
        return await exec_in_container(
            self._transport, namespace, pod, container, command, timeout=timeout, keep_bytes=keep_bytes
        )

    async def _patch(
        self,
        kind: Kind,
        name: str,
        namespace: str | None,
        body: Body,
        type_: PatchType,
        subresource: str | None,
        params: Mapping[str, str],
    ) -> bytes:
        path = kind.path(namespace, name, subresource)
        content = _PATCH_CONTENT[type_]
        return await self._request("patch", "PATCH", kind, path, params=params, body=_encode(body), content=content)

    async def _request(
        self,
        verb: str,
        method: str,
        kind: Kind,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
        content: str = JSON,
        accept: str = JSON,
        repeatable: bool = True,
    ) -> bytes:
        call = Call(verb, method, path, kind.resource, params or {}, body, content, accept, repeatable)
        return await self._transport.request(call)


def _exact(revision: str | None) -> dict[str, str]:
    if revision is None:
        return {}
    if revision in ("", "0"):
        raise ValueError(f"{revision!r} is no revision that a list can be exact at")
    return {"resourceVersion": revision, "resourceVersionMatch": "Exact"}


def _selector_value(name: str) -> str:
    """Escape what means something in a field selector (apimachinery, fields.EscapeValue): RBAC names may hold it."""
    return name.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")


def _params(**values: str | None) -> dict[str, str]:
    return {key: value for key, value in values.items() if value is not None}


def _write_params(field_manager: str | None, dry_run: bool) -> dict[str, str]:
    return _params(fieldManager=field_manager, dryRun="All" if dry_run else None)


def _encode(body: Body) -> bytes:
    return body if isinstance(body, bytes) else msgspec.json.encode(body)


def _decode(data: bytes, decode: Callable[[bytes], _T]) -> _T:
    try:
        return decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"the body is no JSON object: {error}") from error


def _watch_event(line: bytes, kind: Kind, path: str) -> WatchEvent:
    try:
        event = _decode_watch_line(line)
        if event.type != "ERROR":
            return WatchEvent(event.type, event.object)
        status = bytes(event.object)
        code = msgspec.json.decode(status, type=_Code).code
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        message = f"a watch of {kind.resource} gave what is no event: {error}"
        raise KubeProtocolError(message, verb="watch", path=path, resource=kind.resource) from error
    failure = error_of_answer(code, status, verb="watch", path=path, resource=kind.resource)
    if failure.reason == "Expired" and not isinstance(failure, KubeExpired):
        failure = error_of_answer(410, status, verb="watch", path=path, resource=kind.resource)
    raise failure
