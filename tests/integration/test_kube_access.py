"""Reading and writing objects of a real API server: revisions, permissions, writes, watches, lost messages."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.discovery import Discovery, discover
from strongroom.dataplane.kube.errors import (
    KubeAlreadyExists,
    KubeConflict,
    KubeExpired,
    KubeForbidden,
    KubeInvalid,
    KubeNotFound,
    KubeTooLargeResourceVersion,
    KubeUnauthorized,
    KubeUnreachable,
)
from strongroom.dataplane.kube.kinds import Kind
from strongroom.dataplane.kube.transport import RetryPolicy
from strongroom.testbed.cluster import Testbed
from strongroom.testbed.faults import CutBody, DropReply, DropRequest, Expired, FaultProxy, Rule, Status, TooMany
from strongroom.testbed.options import TestbedOptions

ALL = frozenset({"list", "get", "create", "patch", "update", "delete", "watch"})
CONFIG_MAPS = Kind("", "v1", "ConfigMap", "configmaps", namespaced=True, verbs=ALL)
NAMESPACES = Kind("", "v1", "Namespace", "namespaces", namespaced=False, verbs=ALL)
SECRETS = Kind("", "v1", "Secret", "secrets", namespaced=True, verbs=ALL)
SERVICE_ACCOUNTS = Kind("", "v1", "ServiceAccount", "serviceaccounts", namespaced=True, verbs=ALL)
DEPLOYMENTS = Kind("apps", "v1", "Deployment", "deployments", namespaced=True, verbs=ALL)
JOBS = Kind("batch", "v1", "Job", "jobs", namespaced=True, verbs=ALL)
MANAGER = "strongroom-test"
QUICK = RetryPolicy(attempts=4, base_s=0.01, cap_s=0.05)


@pytest.fixture
async def api(testbed: Testbed) -> AsyncIterator[KubeApi]:
    async with KubeApi.from_kubeconfig(testbed.kubeconfig, retry=QUICK) as connected:
        yield connected


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"test": "yes"}},
        "data": data,
    }


async def crd(api: KubeApi) -> Kind:
    """Make a CRD of a group of its own, and wait until it is served."""
    group = f"t{uuid.uuid4().hex[:8]}.example.org"
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"plural": "widgets", "singular": "widget", "kind": "Widget", "shortNames": ["wdg"]}
    document = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"widgets.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": names,
            "versions": [{**version, "subresources": {"status": {}}}],
        },
    }
    crds = Kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", False, ALL)
    await api.create(crds, document)
    kind = Kind(group, "v1", "Widget", "widgets", namespaced=True, verbs=ALL)
    async with asyncio.timeout(30):
        while True:
            found = await discover(api)
            if kind in found.kinds:
                return found.find(f"widgets.{group}")
            await asyncio.sleep(0.05)


def name_of(item: msgspec.Raw) -> str:
    name: str = json.loads(bytes(item))["metadata"]["name"]
    return name


async def revision_of(api: KubeApi) -> str:
    async for page in api.list_pages(NAMESPACES, limit=1):
        return page.revision
    raise AssertionError("a list has one page at least")


async def test_lists_of_several_kinds_at_one_revision_show_one_instant_while_both_are_written(
    api: KubeApi, namespace: str
) -> None:
    widgets = await crd(api)
    stop = asyncio.Event()

    async def write_in_lock_step() -> int:
        number = 0
        while not stop.is_set():
            number += 1
            # The invariant: the widget's number is never above the ConfigMap's, which is written first.
            for n in range(6):
                await api.apply(
                    CONFIG_MAPS, f"a-{n}", namespace, config_map(f"a-{n}", n=str(number)), field_manager=MANAGER
                )
            widget = {"apiVersion": widgets.api_version, "kind": "Widget", "metadata": {"name": "w"}, "n": number}
            await api.apply(widgets, "w", namespace, widget, field_manager=MANAGER)
        return number

    writer = asyncio.create_task(write_in_lock_step())
    compared = 0
    try:
        while compared < 15:
            at = await revision_of(api)
            maps = [
                json.loads(bytes(item))
                async for page in api.list_pages(
                    CONFIG_MAPS, namespace=namespace, revision=at, limit=2, labels="test=yes"
                )
                for item in page.items
            ]
            found = await api.get_at(widgets, "w", namespace, at)
            if found is None or len(maps) < 6:
                assert not writer.done(), writer.exception()
                continue
            widget = json.loads(bytes(found))
            numbers = [int(one["data"]["n"]) for one in maps]
            assert len({*numbers, widget["n"]}) <= 2  # one round under way at most
            assert numbers == sorted(numbers, reverse=True)
            assert widget["n"] in (min(numbers), max(numbers) - 1)
            compared += 1
    finally:
        stop.set()
        rounds = await writer
    assert rounds > 15


async def test_metadata_lists_of_built_in_and_custom_resources_agree_with_whole_lists(
    api: KubeApi, namespace: str
) -> None:
    widgets = await crd(api)
    for n in range(5):
        await api.create(CONFIG_MAPS, config_map(f"m-{n}", big="x" * 1000), namespace)
        body = {"apiVersion": widgets.api_version, "kind": "Widget", "metadata": {"name": f"m-{n}"}, "big": "x" * 1000}
        await api.create(widgets, body, namespace)
    at = await revision_of(api)
    for kind in (CONFIG_MAPS, widgets):
        lists = []
        for metadata_only in (False, True):
            pages = api.list_pages(kind, namespace=namespace, revision=at, limit=2, metadata_only=metadata_only)
            got = [page async for page in pages]
            assert len(got) >= 3
            assert {page.revision for page in got} == {at}
            items = [json.loads(bytes(item)) for page in got for item in page.items]
            lists.append([item["metadata"] for item in items])
            assert all(
                "big" not in json.dumps(item.get("data", item.get("big", ""))) for item in items if metadata_only
            )
        assert lists[0] == lists[1]


async def test_one_object_is_read_as_it_stood(api: KubeApi, namespace: str) -> None:
    await api.create(CONFIG_MAPS, config_map("c", k="old"), namespace)
    then = await revision_of(api)
    await api.patch(CONFIG_MAPS, "c", namespace, {"data": {"k": "new"}})
    await api.create(CONFIG_MAPS, config_map("later"), namespace)
    old = await api.get_at(CONFIG_MAPS, "c", namespace, then)
    assert old is not None
    assert json.loads(bytes(old))["data"] == {"k": "old"}
    assert await api.get_at(CONFIG_MAPS, "later", namespace, then) is None
    assert json.loads(await api.get(CONFIG_MAPS, "c", namespace))["data"] == {"k": "new"}


@pytest.mark.parametrize("stem", ["a=b,c", "a\\b", "system:x&y", "ä b?#", "50%25"])
async def test_a_name_that_means_something_in_urls_or_selectors_is_found(
    api: KubeApi, namespace: str, stem: str
) -> None:
    roles = Kind("rbac.authorization.k8s.io", "v1", "Role", "roles", namespaced=True, verbs=ALL)
    body = {"apiVersion": roles.api_version, "kind": "Role", "metadata": {"name": stem}, "rules": []}
    if "%" in stem:  # RBAC names are path segments: the server refuses these itself
        with pytest.raises(KubeInvalid):
            await api.create(roles, body, namespace)
        return
    await api.create(roles, body, namespace)
    found = await api.get_at(roles, stem, namespace, await revision_of(api))
    assert found is not None
    assert name_of(found) == stem
    assert json.loads(await api.get(roles, stem, namespace))["metadata"]["name"] == stem
    await api.delete(roles, stem, namespace)


async def test_a_revision_of_the_future_is_told_from_other_failures(testbed: Testbed) -> None:
    async with KubeApi.from_kubeconfig(testbed.kubeconfig, retry=RetryPolicy(attempts=1)) as api:
        far = str(int(await revision_of(api)) + 1_000_000)
        with pytest.raises(KubeTooLargeResourceVersion):
            await anext(api.list_pages(CONFIG_MAPS, revision=far))


async def test_a_missing_permission_names_verb_and_resource(testbed: Testbed, namespace: str) -> None:
    nobody = testbed.make_client_cert("nobody-special", [])
    async with KubeApi.from_kubeconfig(nobody) as api:
        with pytest.raises(KubeForbidden) as raised:
            await anext(api.list_pages(DEPLOYMENTS, namespace=namespace))
        assert (raised.value.verb, raised.value.resource) == ("list", "deployments.apps")
        assert raised.value.reason == "Forbidden"
        assert "nobody-special" in raised.value.detail
        found = await discover(api)
        assert found.find("deploy").name == "Deployment.apps"
        assert not found.aggregated_known


def kubeconfig_with(testbed: Testbed, tmp_path: Path, **user: Any) -> Path:
    document = json.loads(testbed.kubectl("config", "view", "--raw", "-o", "json"))
    document["users"] = [{"name": entry["name"], "user": user} for entry in document["users"]]
    path = tmp_path / f"kubeconfig-{uuid.uuid4().hex[:6]}"
    path.write_text(json.dumps(document))
    return path


async def test_a_wrong_token_is_unauthorized_and_a_wrong_authority_unreachable(
    testbed: Testbed, tmp_path: Path
) -> None:
    async with KubeApi.from_kubeconfig(kubeconfig_with(testbed, tmp_path, token="wrong")) as api:
        with pytest.raises(KubeUnauthorized):
            await api.get_path("/version")
    async with FaultProxy("http://127.0.0.1:1", serve_tls=True) as other:
        document = json.loads(testbed.kubectl("config", "view", "--raw", "-o", "json"))
        authority = msgspec.json.decode(msgspec.json.encode(other.certificate), type=str)  # bytes become base64
        document["clusters"][0]["cluster"]["certificate-authority-data"] = authority
        path = tmp_path / "kubeconfig"
        path.write_text(json.dumps(document))
    async with KubeApi.from_kubeconfig(path) as api:
        with pytest.raises(KubeUnreachable, match="certificate"):
            await api.get_path("/version")
        assert api.requests == 1


@pytest.mark.parametrize("means", ["token", "tokenFile", "v1", "v1beta1"])
async def test_a_service_account_token_works_however_the_kubeconfig_gives_it(
    api: KubeApi, testbed: Testbed, namespace: str, tmp_path: Path, means: str
) -> None:
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    await _account(api, namespace)
    made = await api.create(SERVICE_ACCOUNTS, request, namespace, name="default", subresource="token")
    token = json.loads(made)["status"]["token"]
    (tmp_path / "token").write_text(token)
    version = f"client.authentication.k8s.io/{means}"
    printed = {"apiVersion": version, "kind": "ExecCredential", "status": {"token": token}}
    user: dict[str, Any] = {
        "token": {"token": token},
        "tokenFile": {"tokenFile": "token"},
    }.get(means) or {"exec": {"apiVersion": version, "command": "echo", "args": [json.dumps(printed)]}}
    async with KubeApi.from_kubeconfig(kubeconfig_with(testbed, tmp_path, **user)) as account:
        reviews = Kind("authentication.k8s.io", "v1", "SelfSubjectReview", "selfsubjectreviews", False, ALL)
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        answer = json.loads(await account.create(reviews, review))
        assert answer["status"]["userInfo"]["username"] == f"system:serviceaccount:{namespace}:default"


async def _account(api: KubeApi, namespace: str) -> None:
    async with asyncio.timeout(30):
        at = await revision_of(api)
        if await api.get_at(SERVICE_ACCOUNTS, "default", namespace, at) is None:
            await anext(api.watch(SERVICE_ACCOUNTS, namespace=namespace, revision=at, fields="metadata.name=default"))


async def test_writes_do_what_they_say(api: KubeApi, namespace: str) -> None:
    made = json.loads(await api.create(CONFIG_MAPS, config_map("w", a="1"), namespace, field_manager=MANAGER))
    assert made["metadata"]["managedFields"][0]["manager"] == MANAGER
    with pytest.raises(KubeAlreadyExists) as exists:
        await api.create(CONFIG_MAPS, config_map("w"), namespace)
    assert not exists.value.after_retry
    await api.create(CONFIG_MAPS, config_map("dry"), namespace, dry_run=True)
    assert await api.get_at(CONFIG_MAPS, "dry", namespace) is None
    with pytest.raises(KubeInvalid) as invalid:
        await api.create(CONFIG_MAPS, config_map("w2", **{"bad key!": "x"}), namespace)
    assert invalid.value.causes[0].field.startswith("data[bad key!]")
    with pytest.raises(KubeConflict) as owned:
        await api.apply(CONFIG_MAPS, "w", namespace, config_map("w", a="2"), field_manager="another")
    assert owned.value.causes[0].field == ".data.a"
    await api.apply(CONFIG_MAPS, "w", namespace, config_map("w", a="2"), field_manager="another", force=True)
    patched = await api.patch(CONFIG_MAPS, "w", namespace, [{"op": "add", "path": "/data/b", "value": "3"}], "json")
    assert json.loads(patched)["data"] == {"a": "2", "b": "3"}
    with pytest.raises(KubeConflict):
        await api.replace(CONFIG_MAPS, "w", namespace, made)  # its resourceVersion is old
    with pytest.raises(KubeConflict):
        await api.delete(CONFIG_MAPS, "w", namespace, uid=str(uuid.uuid4()))
    await api.delete(CONFIG_MAPS, "w", namespace, uid=made["metadata"]["uid"], propagation="Background")
    with pytest.raises(KubeNotFound):
        await api.get(CONFIG_MAPS, "w", namespace)


async def test_a_status_is_put_through_its_subresource(api: KubeApi, namespace: str) -> None:
    widgets = await crd(api)
    assert widgets.subresources == {"status"}
    body = {"apiVersion": widgets.api_version, "kind": "Widget", "metadata": {"name": "s"}, "status": {"lost": True}}
    assert "status" not in json.loads(await api.create(widgets, body, namespace))
    await api.patch(widgets, "s", namespace, {"status": {"kept": True}}, subresource="status")
    assert json.loads(await api.get(widgets, "s", namespace))["status"] == {"kept": True}


async def test_a_watch_tells_what_changed_after_a_revision(api: KubeApi, namespace: str) -> None:
    at = await revision_of(api)
    await api.create(CONFIG_MAPS, config_map("w", k="1"), namespace)
    await api.patch(CONFIG_MAPS, "w", namespace, {"data": {"k": "2"}})
    await api.delete(CONFIG_MAPS, "w", namespace)
    seen = []
    async with asyncio.timeout(30):
        events = api.watch(CONFIG_MAPS, namespace=namespace, revision=at, labels="test=yes", timeout=60)
        async for event in events:
            seen.append((event.type, name_of(event.raw)))
            if event.type == "DELETED":
                break
        await events.aclose()
    assert seen == [("ADDED", "w"), ("MODIFIED", "w"), ("DELETED", "w")]


async def test_a_watch_ends_by_itself_after_its_time(api: KubeApi, namespace: str) -> None:
    at = await revision_of(api)
    async with asyncio.timeout(20):
        assert [event.type async for event in api.watch(SECRETS, namespace=namespace, revision=at, timeout=1)] == []


async def test_a_compacted_revision_is_expired_also_in_mid_paging(own_testbed: Callable[..., Testbed]) -> None:
    # With its snapshots of lists in memory the server would go on serving the revision for up to 15 s.
    from_etcd = ("--feature-gates=ListFromCacheSnapshot=false",)
    cluster = own_testbed(TestbedOptions(volumes=False, apiserver_flags=from_etcd))
    async with KubeApi.from_kubeconfig(cluster.kubeconfig, retry=QUICK) as api:
        for n in range(4):
            await api.create(CONFIG_MAPS, config_map(f"c-{n}"), "default")
        old = await revision_of(api)
        pages = api.list_pages(CONFIG_MAPS, namespace="default", revision=old, limit=2)
        assert len((await anext(pages)).items) == 2
        await api.create(CONFIG_MAPS, config_map("later"), "default")
        cluster.compact(wait=False)
        with pytest.raises(KubeExpired):
            await anext(pages)
        with pytest.raises(KubeExpired):
            await api.get_at(CONFIG_MAPS, "c-0", "default", old)


# Through the fault proxy


@pytest.fixture
async def faulty(testbed: Testbed, tmp_path: Path) -> AsyncIterator[tuple[FaultProxy, KubeApi]]:
    async with FaultProxy.for_cluster(testbed.kubeconfig) as proxy:
        path = proxy.write_kubeconfig(tmp_path / "kubeconfig")
        async with KubeApi.from_kubeconfig(path, retry=QUICK) as through:
            yield proxy, through


async def test_lists_come_whole_through_a_server_that_is_busy_fails_and_breaks_off(
    faulty: tuple[FaultProxy, KubeApi], namespace: str
) -> None:
    proxy, api = faulty
    for n in range(9):
        await api.create(CONFIG_MAPS, config_map(f"c-{n}"), namespace)
    proxy.clear()
    first_page, second_page = (TooMany(0), Status(500), Status(503)), (CutBody(100), DropRequest(), DropReply())
    proxy.add(*(Rule(fault, path="/configmaps", times=1) for fault in first_page))
    proxy.add(*(Rule(fault, path="/configmaps.*continue=", times=1) for fault in second_page))
    names = [
        name_of(item)
        async for page in api.list_pages(CONFIG_MAPS, namespace=namespace, limit=3, labels="test=yes")
        for item in page.items
    ]
    assert names == [f"c-{n}" for n in range(9)]
    # The last page is empty: kube-root-ca.crt comes after the ninth, and the selector leaves it out.
    assert [record.action for record in proxy.requests] == [*first_page, None, *second_page, None, None, None]


async def test_an_expired_page_ends_the_list_and_no_other_revision_is_mixed_in(
    faulty: tuple[FaultProxy, KubeApi], namespace: str
) -> None:
    proxy, api = faulty
    for n in range(4):
        await api.create(CONFIG_MAPS, config_map(f"c-{n}"), namespace)
    proxy.add(Rule(Expired(), path="continue=", times=1))
    pages = api.list_pages(CONFIG_MAPS, namespace=namespace, limit=2)
    await anext(pages)
    with pytest.raises(KubeExpired):
        await anext(pages)
    assert proxy.count("GET", "inconsistent") == 0


async def test_a_create_whose_reply_was_lost_stands_once_and_says_so(
    faulty: tuple[FaultProxy, KubeApi], namespace: str
) -> None:
    proxy, api = faulty
    proxy.add(Rule(DropReply(), method="POST", times=1))
    with pytest.raises(KubeAlreadyExists) as raised:
        await api.create(JOBS, job("once"), namespace)
    assert raised.value.after_retry
    assert await api.get_at(JOBS, "once", namespace) is not None


async def test_a_watch_passes_through_the_proxy_as_it_happens(
    faulty: tuple[FaultProxy, KubeApi], api: KubeApi, namespace: str
) -> None:
    _, through = faulty
    at = await revision_of(api)
    events = through.watch(CONFIG_MAPS, namespace=namespace, revision=at, labels="test=yes", timeout=60)
    next_event = asyncio.ensure_future(anext(events))
    await api.create(CONFIG_MAPS, config_map("w"), namespace)
    async with asyncio.timeout(20):
        assert (await next_event).type == "ADDED"
    await events.aclose()


def job(name: str) -> dict[str, Any]:
    container = {"name": "c", "image": "none"}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"template": template}}


# Discovery


async def test_old_discovery_finds_what_aggregated_discovery_finds(
    api: KubeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    def described(found: Discovery) -> list[tuple[Any, ...]]:
        return [
            (kind, kind.verbs, kind.short_names, kind.singular, kind.categories, kind.subresources)
            for kind in found.kinds
            if kind.group.endswith(".k8s.io") or "." not in kind.group  # other tests add groups of their own
        ]

    new = await discover(api)
    monkeypatch.setattr("strongroom.dataplane.kube.discovery.AGGREGATED", "application/json")
    old = await discover(api)
    assert described(old) == described(new)
    assert old.server_version == new.server_version == "v1.37.2"
    assert old.find("hpa").version == "v2"
    assert new.versions["autoscaling", "HorizontalPodAutoscaler"] == ("v2", "v1")


@pytest.mark.parametrize("accept", [None, "application/json"])
async def test_a_dead_api_service_is_a_failed_group_with_the_reason_and_the_others_are_there(
    own_testbed: Callable[..., Testbed], monkeypatch: pytest.MonkeyPatch, accept: str | None
) -> None:
    cluster = own_testbed(TestbedOptions(volumes=False))
    if accept:
        monkeypatch.setattr("strongroom.dataplane.kube.discovery.AGGREGATED", accept)
    services = Kind("apiregistration.k8s.io", "v1", "APIService", "apiservices", namespaced=False, verbs=ALL)
    service = {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": "v1beta1.metrics.example.org"},
        "spec": {
            "group": "metrics.example.org",
            "version": "v1beta1",
            "service": {"namespace": "default", "name": "nobody"},
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "insecureSkipTLSVerify": True,
        },
    }
    async with KubeApi.from_kubeconfig(cluster.kubeconfig, retry=QUICK) as api:
        await api.create(services, service)
        async with asyncio.timeout(30):
            found = await discover(api)
            while "no condition" in found.failed.get("metrics.example.org/v1beta1", "no condition"):
                await asyncio.sleep(0.1)
                found = await discover(api)
    assert list(found.failed) == ["metrics.example.org/v1beta1"]
    assert "ServiceNotFound" in found.failed["metrics.example.org/v1beta1"]
    assert found.aggregated == {"metrics.example.org/v1beta1"}
    assert found.find("deploy").name == "Deployment.apps"
