"""What an API server serves: every kind in its preferred version, and what it could not tell, as values.

Aggregated discovery (two requests for everything) where the server has it, else the old one (a request for each group
version). An API group that does not answer never makes this fail and is never silently missing: it stands in `failed`.
"""

import asyncio
import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, TypeVar

import msgspec

from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.errors import (
    AmbiguousKind,
    KubeError,
    KubeForbidden,
    KubeNotFound,
    KubeProtocolError,
    KubeUnauthorized,
    KubeUnreachable,
    UnknownKind,
)
from strongroom.dataplane.kube.kinds import Kind

AGGREGATED: Final = ",".join(
    [f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList" for version in ("v2", "v2beta1")]
    + ["application/json"]
)
API_SERVICES: Final = Kind(
    "apiregistration.k8s.io", "v1", "APIService", "apiservices", namespaced=False, verbs=frozenset({"list"})
)
NEAR_MATCHES: Final = 5  # enough to show the word meant, few enough to read

GroupKind = tuple[str, str]


@dataclass(frozen=True)
class Discovery:
    """What one API server serves.

    *kinds* holds each kind once, in its group's preferred version that has it, sorted; subresources are not kinds.
    *versions* gives for (group, kind) all versions served, preferred first. *failed* maps what could not be
    discovered (`group/version`, or `group`) to the server's reason. *aggregated* holds the group versions that
    another API server answers behind an APIService; `aggregated_known` is False where we may not list those.
    """

    kinds: tuple[Kind, ...]
    failed: Mapping[str, str]
    server_version: str
    versions: Mapping[GroupKind, tuple[str, ...]] = field(default_factory=dict)
    aggregated: frozenset[str] = frozenset()
    aggregated_known: bool = True

    def find(self, spelling: str) -> Kind:
        """Return the kind that *spelling* names, as kubectl reads it.

        Plural, singular, short name or kind, alone or with a group (`deployments.apps`, `deployments.v1.apps`), or
        `v1/Secret`, `apps/v1/Deployment`; a version that is served but not preferred finds the kind in the preferred
        one. Of several groups the core group wins, then the one of Kubernetes itself.
        Raises `UnknownKind` with near spellings, `AmbiguousKind` where only a group can tell.
        """
        found = self._matches(spelling)
        if len(found) > 1:
            found = _of_kubernetes(found)
        if len(found) == 1:
            return found[0]
        if found:
            names = sorted(kind.resource for kind in found)
            hint = f"Write one of {', '.join(names)}"
            raise AmbiguousKind(f"{spelling!r} is served by several API groups", hint=hint, near=names)
        near = self._near(spelling)
        hint = f"Did you mean {', '.join(near)}?" if near else "`kubectl api-resources` lists what is served"
        failed = [f"{name} ({reason})" for name, reason in self.failed.items() if _names_group(spelling, name)]
        if failed:
            hint = f"Discovery of that group failed: {'; '.join(failed)}"
        raise UnknownKind(f"the cluster serves no kind {spelling!r}", hint=hint, near=near)

    def _matches(self, spelling: str) -> list[Kind]:
        if "/" in spelling:
            api_version, _, name = spelling.rpartition("/")
            group, _, version = api_version.rpartition("/")
            return [kind for kind in _named(self.kinds, name) if kind.group == group and self._serves(kind, version)]
        whole = _named(self.kinds, spelling)
        if whole:
            return whole
        name, _, rest = spelling.partition(".")
        if not rest:
            return []
        of_group = [kind for kind in _named(self.kinds, name) if kind.group == rest]
        if of_group:
            return of_group
        version, _, group = rest.partition(".")
        return [kind for kind in _named(self.kinds, name) if kind.group == group and self._serves(kind, version)]

    def _serves(self, kind: Kind, version: str) -> bool:
        return version in self.versions.get((kind.group, kind.kind), (kind.version,))

    def _near(self, spelling: str) -> list[str]:
        spellings: dict[str, str] = {}
        for kind in self.kinds:
            for word in (kind.plural, kind.singular, kind.resource, kind.kind.lower(), kind.name.lower()):
                spellings.setdefault(word, kind.resource)
        words = difflib.get_close_matches(spelling.rsplit("/", 1)[-1].lower(), [*spellings], n=NEAR_MATCHES)
        return list(dict.fromkeys(spellings[word] for word in words))


async def discover(api: KubeApi) -> Discovery:
    """Ask *api* what it serves. Raises a `KubeError` only where the server itself does not answer or refuses us."""
    version, found, services = await asyncio.gather(_server_version(api), _found(api), _api_services(api))
    failed = dict(found.failed)
    for service in services or ():
        # A dead API server behind an APIService may be missing from discovery, or be there with what was cached.
        if not service.local and not service.available:
            failed[service.group_version] = service.reason
    kinds, versions = _preferred(kind for kind in found.kinds if kind.api_version not in failed)
    aggregated = frozenset(service.group_version for service in services or () if not service.local)
    return Discovery(
        kinds=tuple(kinds),
        failed=MappingProxyType(dict(sorted(failed.items()))),
        server_version=version,
        versions=MappingProxyType(versions),
        aggregated=aggregated,
        aggregated_known=services is not None,
    )


@dataclass(frozen=True, slots=True)
class _Found:
    kinds: Sequence[Kind]  # all versions, each group's preferred first
    failed: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _ApiService:
    group_version: str
    local: bool
    available: bool
    reason: str


# Wire shapes. Everything is optional: a server behind an APIService may leave out what it likes.


class _GroupVersionKind(msgspec.Struct, frozen=True):
    kind: str = ""


class _Subresource(msgspec.Struct, frozen=True):
    subresource: str = ""


class _Resource(msgspec.Struct, frozen=True, rename="camel"):
    resource: str
    response_kind: _GroupVersionKind | None = None
    scope: str = ""
    singular_resource: str = ""
    verbs: list[str] | None = None
    short_names: list[str] | None = None
    categories: list[str] | None = None
    subresources: list[_Subresource] | None = None


class _Version(msgspec.Struct, frozen=True):
    version: str
    freshness: str = "Current"
    resources: list[_Resource] | None = None


class _Meta(msgspec.Struct, frozen=True):
    name: str = ""


class _Group(msgspec.Struct, frozen=True):
    metadata: _Meta = _Meta()
    versions: list[_Version] | None = None


class _GroupDiscoveryList(msgspec.Struct, frozen=True):
    kind: str = ""
    items: list[_Group] | None = None


class _OldVersion(msgspec.Struct, frozen=True):
    version: str


class _OldGroup(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    versions: list[_OldVersion]
    preferred_version: _OldVersion | None = None


class _OldGroupList(msgspec.Struct, frozen=True):
    groups: list[_OldGroup] | None = None


class _OldCore(msgspec.Struct, frozen=True):
    versions: list[str] | None = None


class _OldResource(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    kind: str
    namespaced: bool = False
    singular_name: str = ""
    verbs: list[str] | None = None
    short_names: list[str] | None = None
    categories: list[str] | None = None


class _OldResourceList(msgspec.Struct, frozen=True):
    resources: list[_OldResource] | None = None


class _Condition(msgspec.Struct, frozen=True):
    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""


class _ServiceSpec(msgspec.Struct, frozen=True):
    group: str = ""
    version: str = ""
    service: dict[str, msgspec.Raw] | None = None


class _ServiceStatus(msgspec.Struct, frozen=True):
    conditions: list[_Condition] | None = None


class _Service(msgspec.Struct, frozen=True):
    spec: _ServiceSpec
    status: _ServiceStatus = _ServiceStatus()


class _ServerVersion(msgspec.Struct, frozen=True, rename="camel"):
    git_version: str


_T = TypeVar("_T")


def _decode(body: bytes | msgspec.Raw, type_: type[_T], path: str) -> _T:
    try:
        return msgspec.json.decode(body, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise KubeProtocolError(f"the answer of {path} is not what it should be: {error}", path=path) from error


async def _server_version(api: KubeApi) -> str:
    return _decode(await api.get_path("/version"), _ServerVersion, "/version").git_version


async def _found(api: KubeApi) -> _Found:
    core, groups = await asyncio.gather(
        api.get_path("/api", accept=AGGREGATED), api.get_path("/apis", accept=AGGREGATED)
    )
    lists = [_decode(core, _GroupDiscoveryList, "/api"), _decode(groups, _GroupDiscoveryList, "/apis")]
    if all(document.kind == "APIGroupDiscoveryList" for document in lists):
        return read_aggregated(lists)
    return await _found_of_old(api, core, groups)


def read_aggregated(documents: Iterable[_GroupDiscoveryList]) -> _Found:
    """Return what aggregated discovery lists; a version that is not Current is failed, whatever it still lists."""
    kinds: list[Kind] = []
    failed: dict[str, str] = {}
    for document in documents:
        for group in document.items or ():
            name = group.metadata.name
            for version in group.versions or ():
                group_version = f"{name}/{version.version}" if name else version.version
                if version.freshness != "Current":
                    failed[group_version] = f"discovery is {version.freshness.lower()}: its API server does not answer"
                    continue
                kinds += [_kind_of(name, version.version, resource) for resource in version.resources or ()]
            if not group.versions:
                failed[name] = "discovery lists the group without any version"
    return _Found([kind for kind in kinds if kind.kind], failed)


def _kind_of(group: str, version: str, resource: _Resource) -> Kind:
    return Kind(
        group=group,
        version=version,
        kind=resource.response_kind.kind if resource.response_kind else "",
        plural=resource.resource,
        namespaced=resource.scope == "Namespaced",
        # A resource without verbs of its own stands there only to carry subresources.
        verbs=frozenset(resource.verbs or ()),
        short_names=tuple(resource.short_names or ()),
        singular=resource.singular_resource,
        categories=tuple(resource.categories or ()),
        subresources=frozenset(sub.subresource for sub in resource.subresources or ()),
    )


async def _found_of_old(api: KubeApi, core: bytes, groups: bytes) -> _Found:
    wanted = [("", version) for version in _decode(core, _OldCore, "/api").versions or ()]
    for group in _decode(groups, _OldGroupList, "/apis").groups or ():
        versions = [version.version for version in group.versions]
        if group.preferred_version and group.preferred_version.version in versions:
            versions.remove(group.preferred_version.version)
            versions.insert(0, group.preferred_version.version)
        wanted += [(group.name, version) for version in versions]
    answers = await asyncio.gather(*(_old_resources(api, group, version) for group, version in wanted))
    kinds: list[Kind] = []
    failed: dict[str, str] = {}
    for (group_name, version), answer in zip(wanted, answers, strict=True):
        if isinstance(answer, str):
            failed[f"{group_name}/{version}" if group_name else version] = answer
        else:
            kinds += read_old(group_name, version, answer)
    return _Found(kinds, failed)


async def _old_resources(api: KubeApi, group: str, version: str) -> list[_OldResource] | str:
    path = f"/apis/{group}/{version}" if group else f"/api/{version}"
    try:
        return _decode(await api.get_path(path), _OldResourceList, path).resources or []
    except (KubeUnauthorized, KubeUnreachable):
        raise
    except KubeError as error:
        return error.detail or error.message


def read_old(group: str, version: str, resources: Sequence[_OldResource]) -> list[Kind]:
    """Return the kinds of one APIResourceList; its `pods/log` entries become subresources of `pods`."""
    subresources: dict[str, set[str]] = {}
    for resource in resources:
        plural, _, sub = resource.name.partition("/")
        if sub:
            subresources.setdefault(plural, set()).add(sub)
    return [
        Kind(
            group=group,
            version=version,
            kind=resource.kind,
            plural=resource.name,
            namespaced=resource.namespaced,
            verbs=frozenset(resource.verbs or ()),
            short_names=tuple(resource.short_names or ()),
            singular=resource.singular_name,
            categories=tuple(resource.categories or ()),
            subresources=frozenset(subresources.get(resource.name, ())),
        )
        for resource in resources
        if "/" not in resource.name
    ]


async def _api_services(api: KubeApi) -> list[_ApiService] | None:
    """Return all APIServices, or None where we may not see them or the server has none."""
    services = []
    path = API_SERVICES.path()
    try:
        async for page in api.list_pages(API_SERVICES, limit=500):
            for item in page.items:
                service = _decode(item, _Service, path)
                ready = next((c for c in service.status.conditions or () if c.type == "Available"), None)
                services.append(
                    _ApiService(
                        group_version=f"{service.spec.group}/{service.spec.version}",
                        local=service.spec.service is None,
                        available=ready is not None and ready.status == "True",
                        reason=f"{ready.reason}: {ready.message}" if ready else "its APIService has no condition yet",
                    )
                )
    except (KubeForbidden, KubeNotFound):
        return None
    return services


def _preferred(kinds: Iterable[Kind]) -> tuple[list[Kind], dict[GroupKind, tuple[str, ...]]]:
    chosen: dict[tuple[str, str], Kind] = {}
    versions: dict[GroupKind, tuple[str, ...]] = {}
    for kind in kinds:
        chosen.setdefault((kind.group, kind.plural), kind)
        known = versions.get((kind.group, kind.kind), ())
        if kind.version not in known:
            versions[kind.group, kind.kind] = (*known, kind.version)
    return sorted(chosen.values()), versions


def _named(kinds: Sequence[Kind], word: str) -> list[Kind]:
    """Return the kinds called *word*; a plural, singular or kind goes before a short name, as in kubectl."""
    low = word.lower()
    if not low:
        return []  # a server may leave a singular empty
    full = [kind for kind in kinds if low in (kind.plural, kind.singular, kind.kind.lower())]
    return full or [kind for kind in kinds if low in kind.short_names]


def _of_kubernetes(kinds: Sequence[Kind]) -> list[Kind]:
    """Return of several groups' kinds the core group's, else those of Kubernetes' own groups, else all."""
    core = [kind for kind in kinds if not kind.group]
    own = [kind for kind in kinds if "." not in kind.group or kind.group.endswith(".k8s.io")]
    return core or own or list(kinds)


def _names_group(spelling: str, failed: str) -> bool:
    group = failed.split("/")[0]
    return spelling.endswith(f".{group}") or spelling.startswith(f"{group}/")
