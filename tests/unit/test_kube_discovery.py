"""What discovery makes of a server's answers, and which kind a spelling names."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.config import ClusterAccess
from strongroom.dataplane.kube.credentials import NoCredentials
from strongroom.dataplane.kube.discovery import Discovery, discover
from strongroom.dataplane.kube.errors import AmbiguousKind, KubeProtocolError, KubeServerError, UnknownKind
from strongroom.dataplane.kube.kinds import Kind
from strongroom.dataplane.kube.transport import RetryPolicy
from strongroom.errors import ExitCode

Ask = Callable[[dict[str, Any]], Awaitable[Discovery]]


@pytest.fixture
async def ask() -> AsyncIterator[Ask]:
    """Discover a server that answers the given documents by path, 404 else; an int is answered as that status."""
    servers: list[TestServer] = []

    async def start(documents: dict[str, Any]) -> Discovery:
        async def handle(request: web.Request) -> web.Response:
            document = documents.get(request.path, 404)
            if isinstance(document, int):
                status = {"kind": "Status", "code": document, "message": f"{request.path} says {document}"}
                return web.json_response(status, status=document)
            return web.json_response(document)

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handle)
        server = TestServer(app)
        await server.start_server()
        servers.append(server)
        access = ClusterAccess(str(server.make_url("")).rstrip("/"), None, NoCredentials())
        async with KubeApi(access, retry=RetryPolicy(attempts=2, base_s=0.001)) as api:
            return await discover(api)

    yield start
    for server in servers:
        await server.close()


def resource(plural: str, kind: str, **more: Any) -> dict[str, Any]:
    fields = {"singularResource": kind.lower(), "scope": "Namespaced", "verbs": ["list"], **more}
    return {"resource": plural, "responseKind": {"group": "", "version": "", "kind": kind}, **fields}


def version(name: str, *resources: dict[str, Any], freshness: str = "Current") -> dict[str, Any]:
    return {"version": name, "freshness": freshness, "resources": list(resources)}


def groups(**versions: list[dict[str, Any]]) -> dict[str, Any]:
    items = [{"metadata": {"name": name.replace("_", ".")}, "versions": found} for name, found in versions.items()]
    return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "items": items}


def server(apis: dict[str, Any], **more: Any) -> dict[str, Any]:
    core = groups(none=[version("v1", resource("pods", "Pod", shortNames=["po"]), resource("events", "Event"))])
    core["items"][0]["metadata"] = {}
    return {"/version": {"gitVersion": "v1.37.2"}, "/api": core, "/apis": apis, **more}


SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"


def service(group: str, version_: str, *, local: bool = False, available: bool = True) -> dict[str, Any]:
    condition = {"type": "Available", "status": str(available), "reason": "FailedDiscoveryCheck", "message": "dead"}
    spec: dict[str, Any] = {"group": group, "version": version_}
    if not local:
        spec["service"] = {"name": "s", "namespace": "n", "port": 443}
    return {"metadata": {"name": f"{version_}.{group}"}, "spec": spec, "status": {"conditions": [condition]}}


def services(*items: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "APIServiceList", "metadata": {"resourceVersion": "7"}, "items": list(items)}


async def test_each_kind_comes_once_in_the_first_version_that_has_it(ask: Ask) -> None:
    apis = groups(
        example_org=[
            version("v2", resource("widgets", "Widget")),
            version("v1", resource("widgets", "Widget"), resource("gadgets", "Gadget")),
        ]
    )
    found = await ask(server(apis))
    assert [(kind.name, kind.version) for kind in found.kinds if kind.group] == [
        ("Gadget.example.org", "v1"),
        ("Widget.example.org", "v2"),
    ]
    assert found.versions["example.org", "Widget"] == ("v2", "v1")
    assert found.find("example.org/v1/Widget").version == "v2"
    assert (found.failed, found.server_version, found.aggregated_known) == ({}, "v1.37.2", False)


async def test_a_stale_version_is_failed_and_an_older_one_of_the_kind_takes_its_place(ask: Ask) -> None:
    stale = version("v2", resource("widgets", "Widget"), freshness="Stale")
    found = await ask(server(groups(example_org=[stale, version("v1", resource("widgets", "Widget"))])))
    assert found.find("widgets").version == "v1"
    assert list(found.failed) == ["example.org/v2"]
    assert "stale" in found.failed["example.org/v2"]


async def test_a_dead_api_service_fails_its_version_even_where_discovery_still_lists_it(ask: Ask) -> None:
    apis = groups(
        metrics_org=[version("v1", resource("metrics", "Metric"))], live_org=[version("v1", resource("lives", "Live"))]
    )
    listed = services(
        service("metrics.org", "v1", available=False),
        service("gone.org", "v1", available=False),
        service("live.org", "v1"),
        service("apps", "v1", local=True),
    )
    found = await ask(server(apis, **{SERVICES: listed}))
    assert found.failed == {"metrics.org/v1": "FailedDiscoveryCheck: dead", "gone.org/v1": "FailedDiscoveryCheck: dead"}
    assert found.aggregated == {"metrics.org/v1", "gone.org/v1", "live.org/v1"}
    assert [kind.name for kind in found.kinds if kind.group] == ["Live.live.org"]
    with pytest.raises(UnknownKind, match="FailedDiscoveryCheck: dead"):
        found.find("metrics.metrics.org")


async def test_resources_that_only_carry_subresources_are_no_kinds(ask: Ask) -> None:
    bare = {"resource": "scales", "scope": "Namespaced", "verbs": [], "subresources": [{"subresource": "x"}]}
    found = await ask(server(groups(example_org=[version("v1", bare)])))
    assert [kind.name for kind in found.kinds] == ["Event", "Pod"]


def old_server(**more: Any) -> dict[str, Any]:
    named = [{"groupVersion": f"example.org/{name}", "version": name} for name in ("v1", "v2")]
    group = {"name": "example.org", "versions": named, "preferredVersion": named[1]}
    widgets = {"name": "widgets", "singularName": "widget", "namespaced": True, "kind": "Widget", "verbs": ["list"]}
    pods = {**widgets, "name": "pods", "singularName": "pod", "kind": "Pod", "shortNames": ["po"]}
    return {
        "/version": {"gitVersion": "v1.20.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "groups": [group]},
        "/api/v1": {"resources": [pods, {**pods, "name": "pods/log"}]},
        "/apis/example.org/v1": {"resources": [widgets]},
        "/apis/example.org/v2": {"resources": [widgets, {**widgets, "name": "widgets/status"}]},
        **more,
    }


async def test_a_server_without_aggregated_discovery_is_asked_version_by_version(ask: Ask) -> None:
    found = await ask(old_server())
    assert [(kind.name, kind.version, kind.subresources) for kind in found.kinds] == [
        ("Pod", "v1", {"log"}),
        ("Widget.example.org", "v2", {"status"}),
    ]
    assert found.versions["example.org", "Widget"] == ("v2", "v1")


async def test_a_version_that_does_not_answer_is_failed_with_the_servers_words(ask: Ask) -> None:
    found = await ask(old_server(**{"/apis/example.org/v2": 503}))
    assert found.failed == {"example.org/v2": "/apis/example.org/v2 says 503"}
    assert found.find("widget").version == "v1"


@pytest.mark.parametrize(
    ("path", "document", "error"), [("/apis", 500, KubeServerError), ("/version", {}, KubeProtocolError)]
)
async def test_discovery_fails_as_a_whole_only_where_the_server_itself_does(
    ask: Ask, path: str, document: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await ask({**server(groups()), path: document})


def kinds(*rows: tuple[str, str, str, str]) -> Discovery:
    made = [
        Kind(group, "v1", kind, plural, True, frozenset({"list"}), short_names=(short,), singular=kind.lower())
        for group, kind, plural, short in rows
    ]
    return Discovery(kinds=tuple(sorted(made)), failed={}, server_version="v1.37.2")


SERVED = kinds(
    ("", "Pod", "pods", "po"),
    ("", "Event", "events", "ev"),
    ("events.k8s.io", "Event", "events", "ev"),
    ("metrics.k8s.io", "PodMetrics", "pods", "pm"),
    ("apps", "Deployment", "deployments", "deploy"),
    ("networking.k8s.io", "NetworkPolicy", "networkpolicies", "netpol"),
    ("projectcalico.org", "NetworkPolicy", "networkpolicies", "cnp"),
    ("a.example.org", "Cluster", "clusters", "cl"),
    ("b.example.org", "Cluster", "clusters", "cl"),
    ("example.org", "Po", "pos", "x"),
)


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("pods", "Pod"),
        ("pod", "Pod"),
        ("Pod", "Pod"),
        ("PODS", "Pod"),
        ("v1/Pod", "Pod"),
        ("v1/pods", "Pod"),
        ("events", "Event"),
        ("events.events.k8s.io", "Event.events.k8s.io"),
        ("events.k8s.io/v1/Event", "Event.events.k8s.io"),
        ("pods.metrics.k8s.io", "PodMetrics.metrics.k8s.io"),
        ("deploy", "Deployment.apps"),
        ("deployments.apps", "Deployment.apps"),
        ("deployment.v1.apps", "Deployment.apps"),
        ("Deployment.apps", "Deployment.apps"),
        ("apps/v1/Deployment", "Deployment.apps"),
        ("netpol", "NetworkPolicy.networking.k8s.io"),
        ("networkpolicies", "NetworkPolicy.networking.k8s.io"),
        ("networkpolicies.projectcalico.org", "NetworkPolicy.projectcalico.org"),
        ("clusters.a.example.org", "Cluster.a.example.org"),
        ("po", "Po.example.org"),  # a singular goes before a short name
    ],
)
def test_a_spelling_names_the_kind_that_kubectl_would_take(spelling: str, name: str) -> None:
    assert SERVED.find(spelling).name == name


@pytest.mark.parametrize("spelling", ["clusters", "Cluster", "cl"])
def test_a_spelling_that_only_a_group_can_tell_is_refused_with_the_full_ones(spelling: str) -> None:
    with pytest.raises(AmbiguousKind) as raised:
        SERVED.find(spelling)
    assert raised.value.near == ("clusters.a.example.org", "clusters.b.example.org")
    assert raised.value.exit_code is ExitCode.USAGE


@pytest.mark.parametrize(
    "spelling", ["deploymnets", "Deploymet.apps", "apps/v2/Deployment", "apps/v1/Pod", "", ".", "/"]
)
def test_an_unknown_spelling_is_refused_with_near_ones(spelling: str) -> None:
    with pytest.raises(UnknownKind) as raised:
        SERVED.find(spelling)
    if spelling.lower().startswith("deploy"):
        assert "deployments.apps" in raised.value.near
