"""Restores into a real API server: the rows of the checklist as the cluster sees them afterwards.

Most tests restore a namespace under another name beside the first, so that nothing has to be deleted and waited for.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from strongroom.dataplane.collector.collect import BackupRequest, collect
from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.objectstore.memory import MemoryStore
from strongroom.dataplane.repository.keyfile import KeyFile
from strongroom.dataplane.repository.model import Selection
from strongroom.dataplane.repository.points import RecoveryPoint
from strongroom.dataplane.repository.repository import Repository
from strongroom.dataplane.restore.errors import PlanMismatch, SelectionInvalid
from strongroom.dataplane.restore.execute import execute
from strongroom.dataplane.restore.gather import gather_plan
from strongroom.dataplane.restore.model import (
    Action,
    Conflict,
    Done,
    ObjectResult,
    RestorePlan,
    RestoreRequest,
    RestoreResult,
    RestoreState,
)
from strongroom.testbed.cluster import Testbed
from strongroom.testbed.faults import FaultProxy
from strongroom.testbed.faults_rules import DropReply, Rule, Status, TooMany


@dataclass
class Ground:
    """A namespace to save and another to restore into."""

    testbed: Testbed
    api: KubeApi
    repo: Repository
    source: str
    target: str

    def apply(self, *objects: dict[str, Any], server_side_as: str = "") -> None:
        flags = ["--server-side", f"--field-manager={server_side_as}"] if server_side_as else []
        documents = "\n---\n".join(json.dumps(obj) for obj in objects)
        self.testbed.kubectl("apply", *flags, "-n", self.source, "-f", "-", stdin=documents)

    def get(self, *words: str, namespace: str | None = None) -> dict[str, Any]:
        found = json.loads(
            self.testbed.kubectl(
                "get",
                *words,
                "-n",
                namespace or self.target,
                "-o",
                "json",
                "--show-managed-fields",
                "--ignore-not-found",
            )
            or "{}"
        )
        assert isinstance(found, dict)
        return found

    async def save(self, *, volumes: bool = False, **selection: Any) -> RecoveryPoint:
        chosen = Selection(include_namespaces=(self.source,), **selection)
        backup = BackupRequest(selection=chosen, snapshot_volumes=volumes, marker=False, whole=True)
        result = await collect(self.api, self.repo, backup)
        return await self.repo.point(result.manifest.id)

    async def plan(self, point: RecoveryPoint, *, mapped: bool = True, **options: Any) -> RestorePlan:
        if mapped:
            options["map_namespaces"] = {self.source: self.target}
        plan = await gather_plan(self.api, point, RestoreRequest(**options))
        return RestorePlan.from_json(plan.to_json())

    async def restore(self, point: RecoveryPoint, *, mapped: bool = True, **options: Any) -> RestoreResult:
        return await execute(self.api, self.repo, point, await self.plan(point, mapped=mapped, **options))


@pytest.fixture
async def ground(
    testbed: Testbed, namespace: str, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Ground]:
    store = MemoryStore(request.node.name, create=True)
    _, key = await Repository.init(store, key_file=tmp_path / "key.json")
    repo = await Repository.open(store, KeyFile.load(key))
    target = f"{namespace}-r"
    async with KubeApi.from_kubeconfig(testbed.kubeconfig) as api:
        yield Ground(testbed, api, repo, namespace, target)
    testbed.kubectl("delete", "namespace", target, "--wait=false", "--ignore-not-found")


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = 30.0) -> None:
    """Poll *condition* until it holds; fail when it does not within *seconds*."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not await condition():
        assert asyncio.get_running_loop().time() < deadline, "it did not become so in time"
        await asyncio.sleep(0.1)


def what(result: RestoreResult, kind: str, name: str) -> ObjectResult:
    return next(obj for obj in result.objects if obj.kind == kind and obj.name == name)


def config(name: str, data: dict[str, str] | None = None, **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}, "data": data or {"a": "1"}}


def of(api_version: str, kind: str, name: str, **fields: Any) -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name, **fields.pop("metadata", {})}, **fields}


def pod_template(app: str) -> dict[str, Any]:
    return {
        "metadata": {"labels": {"app": app}},
        "spec": {"containers": [{"name": "main", "image": "example.test/image"}], "terminationGracePeriodSeconds": 0},
    }


async def test_row_01_objects_come_back_with_their_content_labels_and_annotations_and_one_call_each(
    ground: Ground, tmp_path: Path
) -> None:
    labels, annotations = {"app": "shop"}, {"note": "keep"}
    ground.apply(
        *(config(f"c{number:02}", {"n": str(number)}, labels=labels, annotations=annotations) for number in range(20)),
        of("v1", "Secret", "s", stringData={"password": "x"}),
    )
    point = await ground.save(include_kinds=("ConfigMap", "Secret"))
    with FaultProxy.for_cluster(ground.testbed.kubeconfig) as proxy:
        async with KubeApi.from_kubeconfig(proxy.write_kubeconfig(tmp_path / "proxy")) as api:
            plan = await ground.plan(point)
            result = await execute(api, ground.repo, point, plan)
        # One for each of the 21 objects and one for the namespace: nothing of them has an applier or a status.
        assert proxy.count("POST") == 22
        assert proxy.count("PATCH") + proxy.count("PUT") == 0
    assert result.state is RestoreState.COMPLETED
    assert (result.created, result.failed) == (22, 0)
    got = ground.get("configmap", "c07")
    was = ground.get("configmap", "c07", namespace=ground.source)
    assert got["data"] == {"n": "7"}
    assert (got["metadata"]["labels"], got["metadata"]["annotations"]) == (labels, was["metadata"]["annotations"])
    assert got["metadata"]["uid"] != was["metadata"]["uid"]
    assert [entry["manager"] for entry in got["metadata"]["managedFields"]] == ["kubectl-client-side-apply"]


async def test_row_02_children_point_to_the_new_owner_and_outlive_the_garbage_collector(ground: Ground) -> None:
    ground.apply(config("owner"))
    uid = ground.get("configmap", "owner", namespace=ground.source)["metadata"]["uid"]
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}
    ground.apply(of("v1", "Secret", "child", metadata={"ownerReferences": [reference]}))
    await ground.restore(await ground.save())
    new = ground.get("configmap", "owner")["metadata"]["uid"]
    assert new != uid
    assert [owner["uid"] for owner in ground.get("secret", "child")["metadata"]["ownerReferences"]] == [new]
    # The collector follows the reference: with the owner gone the child goes, so the reference is a live one.
    ground.testbed.kubectl("delete", "configmap", "owner", "-n", ground.target)

    async def gone() -> bool:
        return not ground.get("secret", "child")

    await eventually(gone)


async def test_row_04_an_applier_gets_its_fields_back(ground: Ground) -> None:
    ground.apply(config("app", {"mine": "1", "also": "2"}), server_side_as="gitops")
    ground.testbed.kubectl(
        "patch", "configmap", "app", "-n", ground.source, "-p", '{"data":{"theirs":"3"}}', "--field-manager=person"
    )
    before = ground.get("configmap", "app", namespace=ground.source)["metadata"]["managedFields"]
    result = await ground.restore(await ground.save())
    assert result.failed == 0
    after = ground.get("configmap", "app")["metadata"]["managedFields"]
    assert after == before
    # The applier drops a field: the server removes it, which it does only for the manager that owns it.
    manifest = json.dumps(config("app", {"mine": "1"}))
    ground.testbed.kubectl(
        "apply", "--server-side", "--field-manager=gitops", "-n", ground.target, "-f", "-", stdin=manifest
    )
    assert ground.get("configmap", "app")["data"] == {"mine": "1", "theirs": "3"}


async def test_row_06_status_is_put_back_for_the_kinds_that_were_asked_for(ground: Ground) -> None:
    ground.apply(
        of(
            "apps/v1",
            "Deployment",
            "web",
            spec={
                "replicas": 0,
                "paused": True,
                "selector": {"matchLabels": {"app": "web"}},
                "template": pod_template("web"),
            },
        ),
        of(
            "policy/v1", "PodDisruptionBudget", "pdb", spec={"selector": {"matchLabels": {"a": "b"}}, "minAvailable": 1}
        ),
    )
    ground.testbed.kubectl(
        "patch", "pdb", "pdb", "-n", ground.source, "--subresource=status", "--type=merge", "-p",
        '{"status":{"disruptedPods":{"p":"2026-01-01T00:00:00Z"}}}',
    )  # fmt: skip
    point = await ground.save()
    plan = await ground.plan(point, restore_status=("PodDisruptionBudget.policy",))
    assert {planned.name: planned.calls for planned in plan.objects() if planned.name in ("pdb", "web")} == {
        "pdb": 2,
        "web": 1,
    }
    result = await execute(ground.api, ground.repo, point, plan)
    assert what(result, "PodDisruptionBudget", "pdb").action is Done.CREATED
    assert "could not be put back" not in what(result, "PodDisruptionBudget", "pdb").reason


async def test_row_08_skip_leaves_what_exists_and_patch_brings_it_back(ground: Ground) -> None:
    ground.apply(
        config("same"),
        config("changed", {"a": "1", "b": "2"}),
        of("apps/v1", "Deployment", "web", spec={
            "replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": pod_template("web"),
        }),
    )  # fmt: skip
    point = await ground.save()
    ground.apply(config("changed", {"a": "9", "c": "3"}))
    ground.testbed.kubectl("scale", "deployment/web", "--replicas=2", "-n", ground.source)
    skipping = await ground.restore(point, mapped=False)
    assert (skipping.patched, skipping.failed) == (0, 0)
    assert "differs" in what(skipping, "ConfigMap", "changed").reason
    assert what(skipping, "ConfigMap", "same").reason == "exists and is equal"
    plan = await ground.plan(point, mapped=False, conflict=Conflict.PATCH)
    diffs = {planned.name: planned.diff for planned in plan.objects() if planned.action is Action.PATCH}
    assert set(diffs) == {"changed", "web"}
    # Nothing but what was changed: no default of the server, no bookkeeping of a controller.
    assert [(change.path, change.before, change.after) for change in diffs["web"]] == [("spec.replicas", 2, 1)]
    assert {change.path for change in diffs["changed"]} >= {"data.a", "data.b", "data.c"}
    result = await execute(ground.api, ground.repo, point, plan)
    assert (result.patched, result.failed) == (2, 0)
    assert ground.get("configmap", "changed", namespace=ground.source)["data"] == {"a": "1", "b": "2"}
    again = await ground.plan(point, mapped=False, conflict=Conflict.PATCH)
    assert not [planned.name for planned in again.objects() if planned.action is not Action.SKIP]


async def test_row_08_a_target_that_changed_after_planning_is_refused_not_overwritten(ground: Ground) -> None:
    ground.apply(config("c", {"a": "1"}), config("d", {"a": "1"}))
    point = await ground.save()
    ground.apply(config("c", {"a": "2"}), config("d", {"a": "2"}))
    plan = await ground.plan(point, mapped=False, conflict=Conflict.PATCH)
    ground.apply(config("c", {"a": "3"}))
    ground.testbed.kubectl("delete", "configmap", "d", "-n", ground.source)
    ground.apply(config("d", {"a": "2"}))
    result = await execute(ground.api, ground.repo, point, plan)
    assert "changed after the plan was made" in what(result, "ConfigMap", "c").reason
    assert "replaced since the plan was made" in what(result, "ConfigMap", "d").reason
    assert ground.get("configmap", "c", namespace=ground.source)["data"] == {"a": "3"}


async def test_row_27_an_immutable_field_is_told_before_anything_is_done(ground: Ground) -> None:
    ground.apply(of("v1", "Secret", "sealed", immutable=True, stringData={"a": "1"}))
    point = await ground.save()
    ground.testbed.kubectl("delete", "secret", "sealed", "-n", ground.source)
    ground.apply(of("v1", "Secret", "sealed", immutable=True, stringData={"a": "2"}))
    plan = await ground.plan(point, mapped=False, conflict=Conflict.PATCH)
    planned = next(planned for planned in plan.objects() if planned.name == "sealed")
    assert planned.action is Action.CONFLICT
    assert planned.reason.startswith("data: ")
    assert b"MQ==" not in plan.to_json()
    assert b"Mg==" not in plan.to_json()
    result = await execute(ground.api, ground.repo, point, plan)
    assert result.state is RestoreState.FAILED
    assert what(result, "Secret", "sealed").action is Done.FAILED


async def test_row_09_a_terminating_namespace_is_waited_for_and_then_made_anew(ground: Ground) -> None:
    ground.apply(config("kept", finalizers=["example.test/guard"]))
    point = await ground.save()
    ground.testbed.kubectl("delete", "namespace", ground.source, "--wait=false")

    async def terminating() -> bool:
        return ground.get("namespace", ground.source).get("status", {}).get("phase") == "Terminating"

    await eventually(terminating)
    plan = await ground.plan(point, mapped=False)
    assert any("Terminating" in warning for warning in plan.warnings)
    restoring = asyncio.create_task(execute(ground.api, ground.repo, point, plan))
    await asyncio.sleep(0)
    ground.testbed.kubectl(
        "patch", "configmap", "kept", "-n", ground.source, "--type=merge", "-p", '{"metadata":{"finalizers":null}}'
    )
    result = await restoring
    assert result.state is RestoreState.COMPLETED
    assert what(result, "ConfigMap", "kept").action is Done.CREATED
    assert ground.get("configmap", "kept", namespace=ground.source)["metadata"]["finalizers"] == ["example.test/guard"]
    ground.testbed.kubectl(
        "patch", "configmap", "kept", "-n", ground.source, "--type=merge", "-p", '{"metadata":{"finalizers":null}}'
    )


async def test_row_10_a_crd_and_its_custom_resources_come_back_together(ground: Ground) -> None:
    group = f"{ground.source}.example.test"
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    names = {"plural": "gears", "singular": "gear", "kind": "Gear"}
    versions = [{"name": "v1", "served": True, "storage": True, "schema": schema}]
    crd = of("apiextensions.k8s.io/v1", "CustomResourceDefinition", f"gears.{group}", spec={
        "group": group, "scope": "Namespaced", "names": names, "versions": versions,
    })  # fmt: skip
    try:
        ground.apply(crd)
        ground.testbed.kubectl("wait", "--for=condition=Established", f"crd/gears.{group}")
        ground.apply(*(of(f"{group}/v1", "Gear", f"g{number}", spec={"teeth": number}) for number in range(5)))
        point = await ground.save()
        ground.testbed.kubectl("delete", "crd", f"gears.{group}")
        plan = await ground.plan(point)
        result = await execute(ground.api, ground.repo, point, plan)
        assert result.failed == 0
        assert what(result, "CustomResourceDefinition", f"gears.{group}").action is Done.CREATED
        assert ground.get(f"gears.{group}", "g3")["spec"] == {"teeth": 3}
    finally:
        ground.testbed.kubectl("delete", "crd", f"gears.{group}", "--ignore-not-found", "--wait=false")


async def test_row_12_a_pod_of_its_own_runs_again_on_a_node_that_the_target_chooses(ground: Ground) -> None:
    ground.apply(of("v1", "Pod", "alone", spec=pod_template("x")["spec"]))
    ground.testbed.kubectl("wait", "--for=condition=Ready", "pod/alone", "-n", ground.source, "--timeout=30s")
    result = await ground.restore(await ground.save())
    assert what(result, "Pod", "alone").action is Done.CREATED
    ground.testbed.kubectl("wait", "--for=condition=Ready", "pod/alone", "-n", ground.target, "--timeout=30s")
    volumes = ground.get("pod", "alone")["spec"]["volumes"]
    assert len([volume for volume in volumes if volume["name"].startswith("kube-api-access-")]) == 1


async def test_row_13_a_deployment_comes_back_with_one_replica_set_and_no_pod_too_many(ground: Ground) -> None:
    ground.apply(of("apps/v1", "Deployment", "web", spec={
        "replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": pod_template("web"),
    }))  # fmt: skip
    ground.testbed.kubectl("rollout", "status", "deployment/web", "-n", ground.source, "--timeout=30s")
    result = await ground.restore(await ground.save())
    assert what(result, "Deployment", "web").action is Done.CREATED
    ground.testbed.kubectl("rollout", "status", "deployment/web", "-n", ground.target, "--timeout=30s")
    assert len(ground.get("replicasets")["items"]) == 1
    assert len(ground.get("pods")["items"]) == 3
    skipped = {obj.kind for obj in result.objects if obj.action is Done.SKIPPED and "made by" in obj.reason}
    assert skipped >= {"ReplicaSet", "Pod"}


async def test_row_14_and_15_a_job_that_waits_and_a_suspended_cron_job_are_restored(ground: Ground) -> None:
    template = pod_template("job")
    template["spec"]["restartPolicy"] = "Never"
    ground.apply(
        of("batch/v1", "Job", "waiting", spec={"suspend": True, "template": template}),
        of(
            "batch/v1",
            "CronJob",
            "hourly",
            spec={"schedule": "0 * * * *", "jobTemplate": {"spec": {"template": template}}},
        ),
    )
    result = await ground.restore(await ground.save(), suspend_cronjobs=True)
    assert what(result, "Job", "waiting").action is Done.CREATED
    job = ground.get("job", "waiting")
    uid = job["metadata"]["uid"]
    assert job["spec"]["selector"]["matchLabels"] == {"batch.kubernetes.io/controller-uid": uid}
    assert ground.get("cronjob", "hourly")["spec"]["suspend"] is True
    ground.testbed.kubectl("patch", "job", "waiting", "-n", ground.target, "-p", '{"spec":{"suspend":false}}')
    ground.testbed.kubectl("wait", "--for=create", "pod", "-l", f"batch.kubernetes.io/controller-uid={uid}",
                           "-n", ground.target, "--timeout=30s")  # fmt: skip


async def test_row_16_services_get_new_addresses_and_keep_only_ports_that_were_chosen(ground: Ground) -> None:
    ports = [{"name": "auto", "port": 80}]
    ground.apply(
        of("v1", "Service", "auto", spec={"type": "NodePort", "selector": {"a": "b"}, "ports": ports}),
        of("v1", "Service", "headless", spec={"clusterIP": "None", "selector": {"a": "b"}, "ports": ports}),
        of("v1", "Service", "outside", spec={"type": "ExternalName", "externalName": "example.test"}),
    )
    ground.apply(
        of("v1", "Service", "chosen", spec={
            "type": "NodePort", "selector": {"a": "b"}, "ports": [{"name": "x", "port": 80, "nodePort": 31987}],
        }),
        server_side_as="gitops",
    )  # fmt: skip
    point = await ground.save()
    result = await ground.restore(point)
    for name in ("auto", "headless", "outside"):
        assert what(result, "Service", name).action is Done.CREATED
    was, got = ground.get("service", "auto", namespace=ground.source), ground.get("service", "auto")
    assert got["spec"]["clusterIP"] not in ("None", was["spec"]["clusterIP"])
    assert got["spec"]["ports"][0]["nodePort"] != was["spec"]["ports"][0]["nodePort"]
    assert ground.get("service", "headless")["spec"]["clusterIP"] == "None"
    # The port is the first service's: the report names field and reason.
    refused = what(result, "Service", "chosen")
    assert refused.action is Done.FAILED
    assert "spec.ports[0].nodePort" in refused.reason
    assert "31987" in refused.reason
    ground.testbed.kubectl("delete", "service", "chosen", "-n", ground.source)
    again = await ground.restore(point)
    assert again.state is RestoreState.COMPLETED
    assert ground.get("service", "chosen")["spec"]["ports"][0]["nodePort"] == 31987


async def test_row_17_hand_made_endpoint_slices_come_back_and_others_are_made_by_the_controller(ground: Ground) -> None:
    ground.apply(
        of("v1", "Service", "auto", spec={"selector": {"app": "x"}, "ports": [{"port": 80}]}),
        of("v1", "Service", "hand", spec={"ports": [{"port": 80}]}),
        of("discovery.k8s.io/v1", "EndpointSlice", "hand-1", addressType="IPv4", ports=[{"port": 80}], endpoints=[
            {"addresses": ["192.0.2.1"]}
        ], metadata={"labels": {"kubernetes.io/service-name": "hand"}}),
        of("v1", "Pod", "p", spec=pod_template("x")["spec"], metadata={"labels": {"app": "x"}}),
    )  # fmt: skip
    ground.testbed.kubectl("wait", "--for=condition=Ready", "pod/p", "-n", ground.source, "--timeout=30s")
    ground.testbed.kubectl("wait", "--for=create", "endpointslice", "-l", "kubernetes.io/service-name=auto",
                           "-n", ground.source, "--timeout=30s")  # fmt: skip
    result = await ground.restore(await ground.save())
    assert what(result, "EndpointSlice", "hand-1").action is Done.CREATED
    made = [obj for obj in result.objects if obj.kind == "EndpointSlice" and obj.name.startswith("auto-")]
    assert [obj.action for obj in made] == [Done.SKIPPED]
    assert result.failed == 0


async def test_row_18_a_token_of_a_service_account_is_filled_anew(ground: Ground) -> None:
    annotations = {"kubernetes.io/service-account.name": "builder"}
    ground.apply(of("v1", "ServiceAccount", "builder"))
    ground.apply(
        of(
            "v1",
            "Secret",
            "my-token",
            type="kubernetes.io/service-account-token",
            metadata={"annotations": annotations},
        )
    )

    async def filled(namespace: str) -> bool:
        return "token" in ground.get("secret", "my-token", namespace=namespace).get("data", {})

    await eventually(lambda: filled(ground.source))
    result = await ground.restore(await ground.save())
    assert what(result, "Secret", "my-token").action is Done.CREATED
    await eventually(lambda: filled(ground.target))
    tokens = {ground.get("secret", "my-token", namespace=n)["data"]["token"] for n in (ground.source, ground.target)}
    assert len(tokens) == 2


async def test_row_19_the_default_service_account_is_completed_not_replaced(ground: Ground) -> None:
    async def there() -> bool:
        return bool(ground.get("serviceaccount", "default", namespace=ground.source))

    await eventually(there)
    ground.apply(
        of("v1", "ServiceAccount", "default", imagePullSecrets=[{"name": "pull"}], metadata={"labels": {"a": "b"}})
    )
    point = await ground.save()
    ground.testbed.kubectl("create", "namespace", ground.target)

    async def made() -> bool:
        return bool(ground.get("serviceaccount", "default"))

    await eventually(made)
    result = await ground.restore(point)
    assert result.failed == 0
    account = ground.get("serviceaccount", "default")
    assert account["imagePullSecrets"] == [{"name": "pull"}]
    assert account["metadata"]["labels"] == {"a": "b"}


async def test_row_20_bindings_follow_their_service_accounts_into_the_new_namespace(ground: Ground) -> None:
    subject = {"kind": "ServiceAccount", "name": "builder", "namespace": ground.source}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
    ground.apply(
        of("v1", "ServiceAccount", "builder"),
        of("rbac.authorization.k8s.io/v1", "RoleBinding", "view", subjects=[subject], roleRef=role),
    )
    await ground.restore(await ground.save())
    assert ground.get("rolebinding", "view")["subjects"][0]["namespace"] == ground.target


async def test_row_31_busy_broken_and_lost_answers_end_in_the_same_objects_once(ground: Ground, tmp_path: Path) -> None:
    ground.apply(*(config(f"c{number:02}", {"n": str(number)}) for number in range(12)))
    point = await ground.save(include_kinds=("ConfigMap",))
    plan = await ground.plan(point)
    with FaultProxy.for_cluster(ground.testbed.kubeconfig) as proxy:
        creates = r"/configmaps"
        proxy.add(
            Rule(TooMany(retry_after=0), method="POST", path=creates, times=2),
            Rule(Status(500), method="POST", path=creates, times=2),
            Rule(Status(503), method="POST", path=creates, times=2),
            Rule(DropReply(), method="POST", path=creates, times=3),
        )
        async with KubeApi.from_kubeconfig(proxy.write_kubeconfig(tmp_path / "proxy")) as api:
            result = await execute(api, ground.repo, point, plan)
    assert result.state is RestoreState.COMPLETED
    made = [obj for obj in result.objects if obj.kind == "ConfigMap" and obj.name.startswith("c")]
    assert {obj.action for obj in made} == {Done.CREATED}
    names = {item["metadata"]["name"] for item in ground.get("configmaps")["items"]}
    assert {f"c{number:02}" for number in range(12)} <= names
    again = await ground.restore(point)
    assert (again.created, again.failed) == (0, 0)


async def test_row_32_names_with_colons_and_of_full_length_come_back(ground: Ground) -> None:
    long = "a" * 253
    colon = "system:thing:reader"
    ground.apply(config(long), of("rbac.authorization.k8s.io/v1", "Role", colon, rules=[]))
    result = await ground.restore(await ground.save())
    assert result.failed == 0
    assert ground.get("configmap", long)["data"] == {"a": "1"}
    assert ground.get("role", colon)["metadata"]["name"] == colon


async def test_a_plan_for_another_cluster_or_point_is_refused(ground: Ground) -> None:
    ground.apply(config("c"))
    point = await ground.save()
    plan = json.loads((await ground.plan(point)).to_json())
    for change in ({"point": "0123456789abcdef-0000000000000009"}, {"target": {**plan["target"], "id": "other"}}):
        other = RestorePlan.from_json(json.dumps({**plan, **change}).encode())
        with pytest.raises(PlanMismatch):
            await execute(ground.api, ground.repo, point, other)
    assert not ground.get("namespace", ground.target)


async def test_what_the_server_refuses_is_reported_and_the_rest_restored(ground: Ground) -> None:
    ground.apply(*(config(f"c{number}") for number in range(3)))
    ground.testbed.kubectl("create", "namespace", ground.target)
    quota = json.dumps(of("v1", "ResourceQuota", "q", spec={"hard": {"count/configmaps": "3"}}))
    ground.testbed.kubectl("apply", "-n", ground.target, "-f", "-", stdin=quota)

    async def counted() -> bool:
        return ground.get("resourcequota", "q").get("status", {}).get("used", {}).get("count/configmaps") == "1"

    await eventually(counted)  # kube-root-ca.crt is one of the three
    result = await ground.restore(await ground.save(include_kinds=("ConfigMap",)))
    assert (result.state, result.failed) == (RestoreState.PARTIAL, 1)
    failed = next(obj for obj in result.objects if obj.action is Done.FAILED)
    assert "exceeded quota" in failed.reason


async def test_row_21_a_webhook_configuration_comes_after_the_service_behind_it_is_ready(ground: Ground) -> None:
    name = ground.source
    client = {"service": {"namespace": name, "name": "hook", "path": "/"}, "caBundle": ""}
    hook = {
        "name": "hook.example.test",
        "clientConfig": client,
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "failurePolicy": "Ignore",
        "rules": [{"apiGroups": ["none.example.test"], "apiVersions": ["v1"], "operations": ["*"], "resources": ["*"]}],
    }
    try:
        ground.apply(
            of("v1", "Service", "hook", spec={"selector": {"app": "hook"}, "ports": [{"port": 443}]}),
            of("apps/v1", "Deployment", "hook", spec={
                "replicas": 1, "selector": {"matchLabels": {"app": "hook"}}, "template": pod_template("hook"),
            }),
            of("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", name, webhooks=[hook]),
        )  # fmt: skip
        kinds = ("ValidatingWebhookConfiguration", "Service", "Deployment")
        point = await ground.save(include_kinds=kinds, cluster_scoped=True)
        ground.testbed.kubectl("delete", "validatingwebhookconfiguration", name)
        chosen = Selection(include_kinds=kinds)
        result = await ground.restore(point, selection=chosen)
        assert result.failed == 0
        assert what(result, "ValidatingWebhookConfiguration", name).action is Done.CREATED
        created = ground.get("validatingwebhookconfiguration", name)
        assert created["webhooks"][0]["clientConfig"]["service"]["namespace"] == ground.target
        ready = next(
            condition["lastTransitionTime"]
            for condition in ground.get("pods")["items"][0]["status"]["conditions"]
            if condition["type"] == "Ready"
        )
        assert ready <= created["metadata"]["creationTimestamp"]
    finally:
        ground.testbed.kubectl("delete", "validatingwebhookconfiguration", name, "--ignore-not-found")


async def test_a_selection_of_workloads_brings_their_namespace_and_the_claims_that_they_mount(ground: Ground) -> None:
    template = pod_template("db")
    template["spec"]["volumes"] = [{"name": "v", "persistentVolumeClaim": {"claimName": "shared"}}]
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Mi"}},
        "storageClassName": "folder-immediate",
    }
    ground.apply(
        of("v1", "PersistentVolumeClaim", "shared", spec=spec),
        of("v1", "PersistentVolumeClaim", "unused", spec=spec),
        of("apps/v1", "StatefulSet", "db", metadata={"labels": {"app": "db"}}, spec={
            "replicas": 1, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}}, "template": template,
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": spec}],
        }),
    )  # fmt: skip
    ground.testbed.kubectl("wait", "--for=create", "pvc/data-db-0", "-n", ground.source, "--timeout=30s")
    plan = await ground.plan(await ground.save(), selection=Selection(selectors=("app=db",), include_kinds=("sts",)))
    due = {(planned.kind, planned.name) for wave in plan.waves for planned in wave.objects}
    assert due == {
        ("Namespace", ground.target),
        ("StatefulSet", "db"),
        ("PersistentVolumeClaim", "shared"),
        ("PersistentVolumeClaim", "data-db-0"),
    }


async def test_a_namespace_that_the_point_does_not_hold_is_a_usage_error(ground: Ground) -> None:
    ground.apply(config("c"))
    point = await ground.save()
    with pytest.raises(SelectionInvalid, match="holds no namespace") as raised:
        await ground.plan(point, mapped=False, selection=Selection(include_namespaces=(ground.source + "x",)))
    assert ground.source in raised.value.hint


def as_user(ground: Ground, user: str, rules: list[dict[str, Any]]) -> Path:
    """Return the kubeconfig of a user whose ClusterRole is *rules*. Both are named after the source namespace."""
    group, api_version = "rbac.authorization.k8s.io", "rbac.authorization.k8s.io/v1"
    subject = {"kind": "User", "name": user, "apiGroup": group}
    reference = {"apiGroup": group, "kind": "ClusterRole", "name": ground.source}
    ground.apply(
        of(api_version, "ClusterRole", ground.source, rules=rules),
        of(api_version, "ClusterRoleBinding", ground.source, subjects=[subject], roleRef=reference),
    )
    return ground.testbed.make_client_cert(user, [])


def remove_user(ground: Ground) -> None:
    ground.testbed.kubectl("delete", "clusterrole,clusterrolebinding", ground.source, "--ignore-not-found")


async def test_a_restore_needs_list_create_and_patch_and_no_more(ground: Ground) -> None:
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
    ground.apply(
        config("same"),
        config("changed"),
        of("apps/v1", "Deployment", "web", spec={
            "replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": pod_template("web"),
        }),
        of("rbac.authorization.k8s.io/v1", "RoleBinding", "view", subjects=[], roleRef=role),
    )  # fmt: skip
    ground.apply(config("applied"), server_side_as="gitops")
    point = await ground.save()
    await ground.restore(point)
    ground.testbed.kubectl("patch", "configmap", "changed", "-n", ground.target, "-p", '{"data":{"a":"2"}}')
    ground.testbed.kubectl("delete", "configmap/applied", "deployment/web", "rolebinding/view", "-n", ground.target)
    rules = [
        {"apiGroups": ["*"], "resources": ["*"], "verbs": ["list", "create", "patch"]},
        {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["*"], "verbs": ["escalate", "bind"]},
    ]
    kubeconfig = as_user(ground, f"restorer-{ground.source}", rules)
    try:
        async with KubeApi.from_kubeconfig(kubeconfig) as api:
            request = RestoreRequest(map_namespaces={ground.source: ground.target}, conflict=Conflict.PATCH)
            result = await execute(api, ground.repo, point, await gather_plan(api, point, request))
    finally:
        remove_user(ground)
    assert result.state is RestoreState.COMPLETED, result
    assert what(result, "ConfigMap", "changed").action is Done.PATCHED
    for kind, name in (("ConfigMap", "applied"), ("Deployment", "web"), ("RoleBinding", "view")):
        assert what(result, kind, name) == ObjectResult(
            group=what(result, kind, name).group,
            kind=kind,
            namespace=ground.target,
            name=name,
            action=Done.CREATED,
            reason="",
        )


async def test_what_the_restorer_may_not_create_is_reported_and_the_rest_restored(ground: Ground) -> None:
    ground.apply(config("c"), of("v1", "Secret", "s", stringData={"a": "1"}))
    point = await ground.save(include_kinds=("ConfigMap", "Secret"))
    rules = [
        {"apiGroups": ["*"], "resources": ["*"], "verbs": ["list"]},
        {"apiGroups": [""], "resources": ["configmaps", "namespaces"], "verbs": ["create", "patch"]},
    ]
    kubeconfig = as_user(ground, f"half-{ground.source}", rules)
    try:
        async with KubeApi.from_kubeconfig(kubeconfig) as api:
            request = RestoreRequest(map_namespaces={ground.source: ground.target})
            result = await execute(api, ground.repo, point, await gather_plan(api, point, request))
    finally:
        remove_user(ground)
    assert result.state is RestoreState.PARTIAL
    assert what(result, "ConfigMap", "c").action is Done.CREATED
    refused = what(result, "Secret", "s")
    assert refused.action is Done.FAILED
    assert 'cannot create resource "secrets"' in refused.reason


async def test_another_cluster_gets_everything_definitions_included(
    ground: Ground, own_testbed: Callable[..., Testbed]
) -> None:
    group = f"{ground.source}.example.test"
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    names = {"plural": "gears", "singular": "gear", "kind": "Gear"}
    versions = [{"name": "v1", "served": True, "storage": True, "schema": schema}]
    spec = {"group": group, "scope": "Namespaced", "names": names, "versions": versions}
    claim = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "folder-immediate",
        "resources": {"requests": {"storage": "1Mi"}},
    }
    other = own_testbed()
    try:
        ground.apply(of("apiextensions.k8s.io/v1", "CustomResourceDefinition", f"gears.{group}", spec=spec))
        ground.testbed.kubectl("wait", "--for=condition=Established", f"crd/gears.{group}")
        ground.apply(
            of(f"{group}/v1", "Gear", "g", spec={"teeth": 7}),
            config("c"),
            of("v1", "PersistentVolumeClaim", "data", spec=claim),
            of("apps/v1", "Deployment", "web", spec={
                "replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": pod_template("web"),
            }),
        )  # fmt: skip
        point = await ground.save()
    finally:
        ground.testbed.kubectl("delete", "crd", f"gears.{group}", "--wait=false", "--ignore-not-found")
    async with KubeApi.from_kubeconfig(other.kubeconfig) as api:
        plan = await gather_plan(api, point, RestoreRequest())
        assert plan.target.id != point.manifest.cluster.id
        with pytest.raises(PlanMismatch):
            await execute(ground.api, ground.repo, point, plan)
        result = await execute(api, ground.repo, point, plan)
    assert result.state is RestoreState.COMPLETED, result
    # The claim had no snapshot: it is empty, and that is said.
    assert any("data is provisioned empty" in warning for warning in result.warnings)
    other.kubectl("rollout", "status", "deployment/web", "-n", ground.source, "--timeout=30s")
    gear = json.loads(other.kubectl("get", f"gears.{group}", "g", "-n", ground.source, "-o", "json"))
    assert gear["spec"] == {"teeth": 7}
    other.kubectl("wait", "--for=jsonpath={.status.phase}=Bound", "pvc/data", "-n", ground.source, "--timeout=60s")


@pytest.mark.parametrize("mapped", [False, True], ids=["same namespace", "mapped"])
async def test_row_08_many_existing_objects_are_compared_by_pages_and_each_difference_found(
    ground: Ground, mapped: bool, tmp_path: Path
) -> None:
    ground.apply(*(config(f"c{number:03}", {"n": str(number)}) for number in range(120)))
    point = await ground.save(include_kinds=("ConfigMap",))
    if mapped:
        await ground.restore(point)
    where = ground.target if mapped else ground.source
    ground.testbed.kubectl("patch", "configmap", "c077", "-n", where, "-p", '{"data":{"n":"x"}}')
    ground.testbed.kubectl("create", "configmap", "c0", "-n", where)
    ground.testbed.kubectl("delete", "configmap", "c100", "-n", where)
    with FaultProxy.for_cluster(ground.testbed.kubeconfig) as proxy:
        async with KubeApi.from_kubeconfig(proxy.write_kubeconfig(tmp_path / "proxy")) as api:
            names = {ground.source: ground.target} if mapped else {}
            plan = await gather_plan(api, point, RestoreRequest(map_namespaces=names, conflict=Conflict.PATCH))
        assert proxy.count("GET", "/configmaps") < 10
    found = {planned.name: planned.action for planned in plan.objects() if planned.action is not Action.SKIP}
    assert found == {"c077": Action.PATCH, "c100": Action.CREATE}
    assert sum(planned.reason == "exists and is equal" for planned in plan.skipped) >= 118


async def test_row_02_an_owner_that_is_restored_later_is_referred_to_afterwards(ground: Ground) -> None:
    ground.apply(of("apps/v1", "Deployment", "web", spec={
        "replicas": 0, "selector": {"matchLabels": {"app": "web"}}, "template": pod_template("web"),
    }))  # fmt: skip
    uid = ground.get("deployment", "web", namespace=ground.source)["metadata"]["uid"]
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": uid}
    ground.apply(config("owned", ownerReferences=[reference]))
    point = await ground.save()
    plan = await ground.plan(point)
    waves = {planned.name: number for number, wave in enumerate(plan.waves) for planned in wave.objects}
    assert waves["owned"] < waves["web"]
    result = await execute(ground.api, ground.repo, point, plan)
    assert result.failed == 0
    new = ground.get("deployment", "web")["metadata"]["uid"]
    assert [owner["uid"] for owner in ground.get("configmap", "owned")["metadata"]["ownerReferences"]] == [new]
