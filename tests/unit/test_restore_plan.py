"""What a plan holds, in which order and why: the rows of the checklist that several objects decide."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import pytest

from strongroom.dataplane.kube.kinds import Kind
from strongroom.dataplane.repository.model import (
    BlobRef,
    ClusterIdentity,
    Digest,
    Incremental,
    Instant,
    KindEntry,
    Manifest,
    ObjectRow,
    PointId,
    ReadAs,
    RunId,
    Selection,
    VolumeEntry,
    VolumeState,
)
from strongroom.dataplane.repository.objects import split
from strongroom.dataplane.restore.candidates import (
    Existing,
    NamespaceFacts,
    ReleasedVolume,
    SourceObject,
    StorageClassFacts,
    TargetState,
)
from strongroom.dataplane.restore.errors import PlanUnreadable, SelectionInvalid
from strongroom.dataplane.restore.model import (
    Action,
    Conflict,
    FieldChange,
    OnExists,
    PlannedObject,
    RestorePlan,
    RestoreRequest,
    VolumeMode,
)
from strongroom.dataplane.restore.plan import plan_restore
from strongroom.dataplane.restore.rules.draft import Rule
from strongroom.dataplane.restore.rules.table import transform
from strongroom.dataplane.restore.selection import ChosenObjects, check_mapping

KINDS = {
    ("", "Namespace"): ("v1", "namespaces", False),
    ("", "ConfigMap"): ("v1", "configmaps", True),
    ("", "Secret"): ("v1", "secrets", True),
    ("", "ServiceAccount"): ("v1", "serviceaccounts", True),
    ("", "Pod"): ("v1", "pods", True),
    ("", "Service"): ("v1", "services", True),
    ("", "Endpoints"): ("v1", "endpoints", True),
    ("", "Node"): ("v1", "nodes", False),
    ("", "PersistentVolume"): ("v1", "persistentvolumes", False),
    ("", "PersistentVolumeClaim"): ("v1", "persistentvolumeclaims", True),
    ("", "ResourceQuota"): ("v1", "resourcequotas", True),
    ("apps", "Deployment"): ("v1", "deployments", True),
    ("apps", "ReplicaSet"): ("v1", "replicasets", True),
    ("apps", "StatefulSet"): ("v1", "statefulsets", True),
    ("batch", "Job"): ("v1", "jobs", True),
    ("networking.k8s.io", "NetworkPolicy"): ("v1", "networkpolicies", True),
    ("extensions", "Ingress"): ("v1beta1", "ingresses", True),
    ("networking.k8s.io", "Ingress"): ("v1", "ingresses", True),
    ("discovery.k8s.io", "EndpointSlice"): ("v1", "endpointslices", True),
    ("storage.k8s.io", "StorageClass"): ("v1", "storageclasses", False),
    ("apiextensions.k8s.io", "CustomResourceDefinition"): ("v1", "customresourcedefinitions", False),
    ("apiregistration.k8s.io", "APIService"): ("v1", "apiservices", False),
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"): (
        "v1",
        "validatingwebhookconfigurations",
        False,
    ),
    ("example.test", "Widget"): ("v1", "widgets", True),
}
CUSTOM = {("example.test", "Widget")}
NOT_SERVED = CUSTOM | {("extensions", "Ingress")}


def entries(*, conversion_webhook: bool = False) -> tuple[KindEntry, ...]:
    return tuple(
        KindEntry(
            group=group,
            version=version,
            kind=kind,
            plural=plural,
            namespaced=namespaced,
            read_as=ReadAs.EXACT,
            crd="uid/1" if (group, kind) in CUSTOM else "",
            conversion_webhook=conversion_webhook and (group, kind) in CUSTOM,
        )
        for (group, kind), (version, plural, namespaced) in KINDS.items()
    )


def manifest(volumes: Iterable[VolumeEntry] = (), *, conversion_webhook: bool = False) -> Manifest:
    return Manifest(
        format=1,
        id=PointId("0123456789abcdef-0000000000000001"),
        run=RunId("r"),
        writer="0123456789abcdef",
        sequence=1,
        previous="",
        repository="",
        started="",
        finished="",
        cluster=ClusterIdentity(id="source", server="https://source.test", version="v1.37.2"),
        selection=Selection(),
        instant=Instant(revision="7", taken=""),
        incremental=Incremental(),
        state="Completed",
        kinds=entries(conversion_webhook=conversion_webhook),
        volumes=tuple(volumes),
    )


def target(
    namespaces: Mapping[str, NamespaceFacts] | None = None,
    classes: Iterable[StorageClassFacts] = (),
    *,
    serves: Iterable[tuple[str, str]] = (),
    without: Iterable[tuple[str, str]] = (),
    snapshots: bool = True,
) -> TargetState:
    missing = (NOT_SERVED - set(serves)) | set(without)
    return TargetState(
        cluster=ClusterIdentity(id="target", server="https://target.test", version="v1.37.2"),
        served={
            (group, kind): (Kind(group, version, kind, plural, namespaced, frozenset()),)
            for (group, kind), (version, plural, namespaced) in KINDS.items()
            if (group, kind) not in missing
        },
        namespaces=namespaces if namespaces is not None else {"shop": NamespaceFacts("ns-uid")},
        storage_classes={found.name: found for found in classes},
        snapshots_served=snapshots,
    )


def obj(
    kind: str,
    name: str,
    group: str = "",
    namespace: str | None = None,
    *,
    owners: Iterable[tuple[str, str, str, bool]] = (),
    **fields: Any,
) -> SourceObject:
    """Return a saved object; its uid is its kind and name. *owners*: (apiVersion, kind, name, controller)."""
    version, _, namespaced = KINDS[group, kind]
    where = namespace or ("shop" if namespaced else "")
    metadata: dict[str, Any] = {"name": name, "uid": f"{kind}/{name}", "resourceVersion": "5"}
    if where:
        metadata["namespace"] = where
    metadata.update(fields.pop("metadata", {}))
    if owners:
        metadata["ownerReferences"] = [
            {"apiVersion": api, "kind": owner, "name": named, "uid": f"{owner}/{named}", "controller": controller}
            for api, owner, named, controller in owners
        ]
    parts = split(msgspec.json.encode({"metadata": metadata, **fields}), group, version, kind)

    def ref(blob: bytes | None) -> BlobRef | None:
        return BlobRef(Digest(name.encode().ljust(32, b".")[:32]), len(blob), "pack", 0) if blob is not None else None

    body = ref(parts.body)
    assert body is not None
    row = ObjectRow(
        group,
        version,
        kind,
        where,
        name,
        parts.uid,
        parts.resource_version,
        None,
        parts.labels,
        body,
        ref(parts.status),
        ref(parts.managed_fields),
    )
    return SourceObject(row, parts.body, parts.status, parts.managed_fields)


def plan(
    *objects: SourceObject,
    request: RestoreRequest | None = None,
    of: Manifest | None = None,
    to: TargetState | None = None,
    existing: Mapping[tuple[str, str, str, str], Existing] | None = None,
    owners: Mapping[tuple[str, str, str, str], str] | None = None,
) -> RestorePlan:
    return plan_restore(
        request or RestoreRequest(),
        of or manifest(),
        objects,
        to or target(),
        existing or {},
        plan_id="0123456789abcdef",
        owners=owners,
    )


def by_name(made: RestorePlan) -> dict[str, PlannedObject]:
    return {f"{planned.kind}/{planned.name}": planned for planned in made.objects()}


def order(made: RestorePlan) -> list[str]:
    return [planned.kind for wave in made.waves for planned in wave.objects]


def test_kinds_come_in_waves_that_let_each_find_what_it_needs() -> None:
    made = plan(
        obj("NetworkPolicy", "n", "networking.k8s.io"),
        obj("ResourceQuota", "q"),
        obj("Deployment", "d", "apps"),
        obj("Widget", "w", "example.test"),
        obj("Service", "s", spec={}),
        obj("ConfigMap", "c"),
        obj("ServiceAccount", "a"),
        obj("PersistentVolumeClaim", "p", spec={}),
        obj("StorageClass", "k", "storage.k8s.io"),
        obj("Namespace", "shop"),
        obj("CustomResourceDefinition", "widgets.example.test", "apiextensions.k8s.io", spec={}),
        to=target({}),
    )
    assert order(made) == [
        "CustomResourceDefinition",
        "Namespace",
        "StorageClass",
        "PersistentVolumeClaim",
        "ServiceAccount",
        "ConfigMap",
        "Widget",
        "Service",
        "Deployment",
        "NetworkPolicy",
        "ResourceQuota",
    ]
    assert [planned.number for planned in made.objects()] == list(range(11))


def test_row_02_owners_of_one_wave_come_before_what_they_own() -> None:
    made = plan(
        obj("Secret", "grandchild", owners=[("v1", "Secret", "child", False)]),
        obj("Secret", "child", owners=[("v1", "ConfigMap", "parent", False)]),
        obj("ConfigMap", "parent"),
    )
    assert [planned.name for wave in made.waves for planned in wave.objects] == ["parent", "child", "grandchild"]
    child = by_name(made)["Secret/child"]
    assert [(owner.source_uid, owner.uid, owner.deferred) for owner in child.owners] == [
        ("ConfigMap/parent", "", False)
    ]


def test_row_02_an_owner_that_exists_gives_its_uid_and_one_outside_the_plan_is_looked_up() -> None:
    made = plan(
        obj("Secret", "a", owners=[("v1", "ConfigMap", "parent", False), ("apps/v1", "Deployment", "other", False)]),
        obj("ConfigMap", "parent"),
        existing={("", "ConfigMap", "shop", "parent"): Existing("live-uid", "9", ())},
        owners={("apps", "Deployment", "shop", "other"): "found-uid"},
    )
    assert [owner.uid for owner in by_name(made)["Secret/a"].owners] == ["live-uid", "found-uid"]


def test_row_02_a_reference_is_dropped_with_a_note_only_when_the_owner_is_nowhere() -> None:
    planned = by_name(plan(obj("Secret", "a", owners=[("v1", "ConfigMap", "gone", False)])))["Secret/a"]
    assert planned.owners == ()
    assert "ConfigMap gone dropped" in planned.notes[0]


def test_row_02_an_owner_of_a_later_wave_is_added_afterwards() -> None:
    made = plan(
        obj("PersistentVolumeClaim", "data-db-0", owners=[("apps/v1", "StatefulSet", "db", True)], spec={}),
        obj("StatefulSet", "db", "apps"),
    )
    claim = by_name(made)["PersistentVolumeClaim/data-db-0"]
    assert claim.action is Action.CREATE
    assert claim.owners[0].deferred
    assert claim.calls == 2


def test_row_02_owners_in_a_circle_are_all_restored() -> None:
    made = plan(
        obj("Secret", "a", owners=[("v1", "ConfigMap", "b", False)]),
        obj("ConfigMap", "b", owners=[("v1", "Secret", "a", False)]),
    )
    assert {planned.action for planned in made.objects()} == {Action.CREATE}
    assert any(owner.deferred for planned in made.objects() for owner in planned.owners)


def test_row_03_foreign_finalizers_are_told() -> None:
    planned = by_name(plan(obj("ConfigMap", "c", metadata={"finalizers": ["example.test/guard"]})))["ConfigMap/c"]
    assert "example.test/guard" in planned.notes[0]


def test_row_04_and_06_a_second_call_is_planned_where_an_applier_or_a_status_is_put_back() -> None:
    applied = [{"manager": "argocd", "operation": "Apply", "fieldsV1": {}}]
    made = plan(
        obj("ConfigMap", "plain", metadata={"managedFields": [{"manager": "kubectl", "operation": "Update"}]}),
        obj("ConfigMap", "applied", metadata={"managedFields": applied}),
        obj("Deployment", "web", "apps", status={"replicas": 1}),
        request=RestoreRequest(restore_status=("Deployment.apps",)),
    )
    calls = {planned.name: planned.calls for planned in made.objects()}
    assert calls == {"plain": 1, "applied": 2, "web": 2}


CHANGE = FieldChange(path="data.a", before="1", after="2")


def test_row_05_an_item_that_was_listed_without_its_kind_is_restored_with_it() -> None:
    source = obj("ConfigMap", "c", data={"a": "1"})
    assert msgspec.json.decode(source.body)["kind"] == "ConfigMap"
    planned = by_name(plan(source))["ConfigMap/c"]
    draft = transform(source.body, Rule(RestoreRequest(), planned))
    assert draft.encode().startswith(b'{"apiVersion":"v1","kind":"ConfigMap",')


@pytest.mark.parametrize(
    ("policy", "existing", "action", "reason"),
    [
        (Conflict.SKIP, Existing("u", "1", ()), Action.SKIP, "exists and is equal"),
        (Conflict.PATCH, Existing("u", "1", ()), Action.SKIP, "exists and is equal"),
        (Conflict.SKIP, Existing("u", "1", (CHANGE,)), Action.SKIP, "exists and differs; the conflict policy is skip"),
        (Conflict.PATCH, Existing("u", "1", (CHANGE,)), Action.PATCH, "exists and differs"),
        (
            Conflict.PATCH,
            Existing("u", "1", (CHANGE,), "data: field is immutable when `immutable` is set"),
            Action.CONFLICT,
            "data: field is immutable when `immutable` is set",
        ),
    ],
)
def test_row_08_and_27_an_existing_object_is_skipped_patched_or_a_conflict(
    policy: Conflict, existing: Existing, action: Action, reason: str
) -> None:
    made = plan(
        obj("ConfigMap", "c"),
        request=RestoreRequest(conflict=policy),
        existing={("", "ConfigMap", "shop", "c"): existing},
    )
    planned = by_name(made)["ConfigMap/c"]
    assert (planned.action, planned.reason) == (action, reason)
    assert planned.diff == (existing.differences if existing.differences else ())


def test_row_09_every_object_gets_its_namespace_and_a_mapped_one_its_object_under_the_new_name() -> None:
    made = plan(
        obj("ConfigMap", "c"),
        obj("Namespace", "shop", metadata={"labels": {"team": "a"}}),
        request=RestoreRequest(map_namespaces={"shop": "shop2"}),
    )
    assert [(planned.kind, planned.namespace, planned.name) for planned in made.objects()] == [
        ("Namespace", "", "shop2"),
        ("ConfigMap", "shop2", "c"),
    ]
    bare = plan(obj("ConfigMap", "c"), to=target({}))
    assert bare.waves[0].objects[0].kind == "Namespace"
    assert bare.waves[0].objects[0].body is None


def test_row_09_a_terminating_namespace_is_waited_for_and_told() -> None:
    made = plan(obj("ConfigMap", "c"), to=target({"shop": NamespaceFacts("u", terminating=True)}))
    namespace = by_name(made)["Namespace/shop"]
    assert namespace.action is Action.CREATE
    assert namespace.needs
    assert "Terminating" in made.warnings[0]


def test_row_09_what_comes_with_a_namespace_by_itself_is_left_to_the_target() -> None:
    made = by_name(plan(obj("ConfigMap", "kube-root-ca.crt"), obj("ServiceAccount", "default")))
    assert made["ConfigMap/kube-root-ca.crt"].action is Action.SKIP
    assert made["ServiceAccount/default"].on_exists is OnExists.MERGE


def test_row_09_two_namespaces_mapped_to_one_conflict_object_by_object() -> None:
    made = plan(
        obj("Namespace", "a"),
        obj("Namespace", "b"),
        obj("ConfigMap", "c", namespace="a"),
        obj("ConfigMap", "c", namespace="b"),
        request=RestoreRequest(map_namespaces={"a": "z", "b": "z"}),
        to=target({}),
    )
    actions = [(planned.kind, planned.source_namespace, planned.action) for planned in made.objects()]
    assert ("ConfigMap", "a", Action.CREATE) in actions
    assert ("ConfigMap", "b", Action.CONFLICT) in actions
    assert sum(planned.kind == "Namespace" and planned.action is Action.CREATE for planned in made.objects()) == 1


def test_row_10_custom_resources_wait_for_their_crd_and_conflict_without_one() -> None:
    crd = obj("CustomResourceDefinition", "widgets.example.test", "apiextensions.k8s.io", spec={})
    with_crd = by_name(plan(obj("Widget", "w", "example.test"), crd))["Widget/w"]
    assert with_crd.needs == ("CustomResourceDefinition widgets.example.test",)
    without = by_name(plan(obj("Widget", "w", "example.test")))["Widget/w"]
    assert without.action is Action.CONFLICT
    assert "its CRD is not restored" in without.reason


def test_row_10_converted_custom_resources_come_after_the_workload_that_converts_them() -> None:
    client = {"service": {"namespace": "shop", "name": "convert"}}
    spec = {"conversion": {"strategy": "Webhook", "webhook": {"clientConfig": client}}}
    made = plan(
        obj("Widget", "w", "example.test"),
        obj("CustomResourceDefinition", "widgets.example.test", "apiextensions.k8s.io", spec=spec),
        obj("Deployment", "convert", "apps"),
        request=RestoreRequest(map_namespaces={"shop": "shop2"}),
        of=manifest(conversion_webhook=True),
        to=target({"shop2": NamespaceFacts("u")}),
    )
    assert order(made) == ["CustomResourceDefinition", "Deployment", "Widget"]
    assert "ready Service shop2/convert" in by_name(made)["Widget/w"].needs


def test_row_11_a_kind_that_moved_is_sent_in_the_version_that_the_target_serves() -> None:
    planned = by_name(plan(obj("Ingress", "i", "extensions")))["Ingress/i"]
    assert (planned.group, planned.version, planned.source_api_version) == (
        "networking.k8s.io",
        "v1",
        "extensions/v1beta1",
    )
    assert "sent as networking.k8s.io/v1" in planned.notes[0]


def test_row_11_a_kind_that_the_target_does_not_serve_is_a_conflict_that_says_so() -> None:
    made = plan(
        obj("NetworkPolicy", "n", "networking.k8s.io"), to=target(without={("networking.k8s.io", "NetworkPolicy")})
    )
    planned = by_name(made)["NetworkPolicy/n"]
    assert planned.action is Action.CONFLICT
    assert planned.reason == "the target serves no NetworkPolicy.networking.k8s.io"


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}, "spec": {}}, "mirror"),
        ({"owners": [("v1", "Node", "n1", True)], "spec": {}}, "static"),
        ({"status": {"phase": "Succeeded"}, "spec": {}}, "finished"),
        ({"status": {"phase": "Failed"}, "spec": {}}, "finished"),
    ],
)
def test_row_12_mirror_static_and_finished_pods_are_left_out(fields: dict[str, Any], word: str) -> None:
    planned = by_name(plan(obj("Pod", "p", **fields)))["Pod/p"]
    assert planned.action is Action.SKIP
    assert word in planned.reason


def test_row_12_a_running_pod_of_its_own_is_restored() -> None:
    assert by_name(plan(obj("Pod", "p", spec={}, status={"phase": "Running"})))["Pod/p"].action is Action.CREATE


def test_row_13_what_a_restored_controller_makes_is_left_out_with_the_reason() -> None:
    made = by_name(
        plan(
            obj("Pod", "web-1-a", owners=[("apps/v1", "ReplicaSet", "web-1", True)], spec={}),
            obj("ReplicaSet", "web-1", "apps", owners=[("apps/v1", "Deployment", "web", True)]),
            obj("Deployment", "web", "apps"),
        )
    )
    assert made["Deployment/web"].action is Action.CREATE
    assert made["ReplicaSet/web-1"].reason == "made by Deployment web"
    assert made["Pod/web-1-a"].reason.startswith("made by ReplicaSet web-1, which is not restored itself")


def test_row_13_without_its_controller_a_pod_is_restored_on_its_own() -> None:
    pod = obj("Pod", "web-1-a", owners=[("apps/v1", "ReplicaSet", "web-1", True)], spec={})
    alone = by_name(plan(pod))["Pod/web-1-a"]
    assert alone.action is Action.CREATE
    there = by_name(plan(pod, owners={("apps", "ReplicaSet", "shop", "web-1"): "u"}))["Pod/web-1-a"]
    assert there.reason == "made by ReplicaSet web-1, which the target has"


def test_row_13_a_pod_under_a_custom_controller_is_restored_after_its_owner() -> None:
    made = plan(
        obj("Pod", "p", owners=[("example.test/v1", "Widget", "w", True)], spec={}),
        obj("Widget", "w", "example.test"),
        to=target(serves=CUSTOM),
    )
    assert order(made) == ["Widget", "Pod"]


def test_row_14_a_finished_job_and_its_pods_are_left_out_and_a_running_one_starts_again() -> None:
    done = {"conditions": [{"type": "Complete", "status": "True"}]}
    made = by_name(
        plan(
            obj("Job", "done", "batch", spec={}, status=done),
            obj("Pod", "done-x", owners=[("batch/v1", "Job", "done", True)], spec={}),
            obj("Job", "half", "batch", spec={}, status={"startTime": "2026-01-01T00:00:00Z"}),
        )
    )
    assert made["Job/done"].reason == "finished Job"
    assert made["Pod/done-x"].action is Action.SKIP
    assert made["Job/half"].action is Action.CREATE
    assert "starts again" in made["Job/half"].notes[0]


def test_row_17_endpoints_and_slices_of_controllers_are_left_out_and_hand_made_ones_kept() -> None:
    label = "endpointslice.kubernetes.io/managed-by"
    made = by_name(
        plan(
            obj("Service", "auto", spec={"selector": {"app": "x"}}),
            obj("Service", "hand", spec={}),
            obj("Endpoints", "auto"),
            obj("Endpoints", "hand"),
            obj(
                "EndpointSlice",
                "auto-1",
                "discovery.k8s.io",
                metadata={"labels": {label: "endpointslice-controller.k8s.io"}},
            ),
            obj("EndpointSlice", "hand-1", "discovery.k8s.io", metadata={"labels": {label: "me"}}),
        )
    )
    assert made["Endpoints/auto"].action is Action.SKIP
    assert made["EndpointSlice/auto-1"].action is Action.SKIP
    assert made["Endpoints/hand"].action is Action.CREATE
    assert made["EndpointSlice/hand-1"].action is Action.CREATE


def test_row_18_a_token_that_the_cluster_made_is_left_out() -> None:
    annotations = {"kubernetes.io/service-account.name": "builder"}
    fields = {"metadata": {"annotations": annotations}, "type": "kubernetes.io/service-account-token"}
    made = by_name(plan(obj("Secret", "builder-token-x7k2p", **fields), obj("Secret", "my-token", **fields)))
    assert made["Secret/builder-token-x7k2p"].action is Action.SKIP
    assert made["Secret/my-token"].action is Action.CREATE


def test_row_21_webhooks_come_last_and_wait_for_their_mapped_service() -> None:
    hooks = [{"name": "w", "clientConfig": {"service": {"namespace": "shop", "name": "s"}}}]
    made = plan(
        obj("ValidatingWebhookConfiguration", "v", "admissionregistration.k8s.io", webhooks=hooks),
        obj("ResourceQuota", "q"),
        request=RestoreRequest(map_namespaces={"shop": "shop2"}),
        to=target({"shop2": NamespaceFacts("u")}),
    )
    assert order(made)[-1] == "ValidatingWebhookConfiguration"
    assert by_name(made)["ValidatingWebhookConfiguration/v"].needs == ("ready Service shop2/s",)


def test_row_22_automanaged_api_services_are_left_out_and_others_come_last() -> None:
    label = {"labels": {"kube-aggregator.kubernetes.io/automanaged": "true"}}
    made = plan(
        obj("APIService", "v1.", "apiregistration.k8s.io", metadata=label, spec={}),
        obj("APIService", "v1.x", "apiregistration.k8s.io", spec={"service": {"namespace": "shop", "name": "s"}}),
        obj("Deployment", "d", "apps"),
    )
    assert by_name(made)["APIService/v1."].action is Action.SKIP
    assert order(made) == ["Deployment", "APIService"]
    assert by_name(made)["APIService/v1.x"].needs == ("ready Service shop/s",)


def volume(policy: str = "Delete", *, dynamic: bool = True) -> SourceObject:
    annotations = {"pv.kubernetes.io/provisioned-by": "driver"} if dynamic else {}
    spec = {"persistentVolumeReclaimPolicy": policy, "claimRef": {"namespace": "shop", "name": "data"}}
    return obj("PersistentVolume", "pv-1", metadata={"annotations": annotations}, spec=spec)


def claim(storage_class: str = "fast") -> SourceObject:
    return obj("PersistentVolumeClaim", "data", spec={"volumeName": "pv-1", "storageClassName": storage_class})


def snapshot(state: VolumeState = VolumeState.SNAPSHOT_READY, reason: str = "") -> VolumeEntry:
    handle = "snap-1" if state is VolumeState.SNAPSHOT_READY else ""
    return VolumeEntry(
        namespace="shop", claim="data", claim_uid="u", driver="d", state=state, handle=handle, reason=reason
    )


FAST = [StorageClassFacts("fast", waits_for_consumer=True)]


def test_row_23_a_claim_with_a_snapshot_is_filled_from_it_and_its_old_volume_left_out() -> None:
    made = plan(claim(), volume(), of=manifest([snapshot()]), to=target(classes=FAST))
    planned = by_name(made)["PersistentVolumeClaim/data"]
    assert planned.volume is not None
    assert (planned.volume.handle, planned.volume.waits_for_consumer, planned.calls) == ("snap-1", True, 3)
    assert by_name(made)["PersistentVolume/pv-1"].action is Action.SKIP
    assert not made.warnings


@pytest.mark.parametrize(
    ("entry", "mode", "snapshots", "why"),
    [
        (snapshot(VolumeState.NOT_SNAPSHOTTABLE, "no CSI driver"), VolumeMode.DATA, True, "no CSI driver"),
        (snapshot(VolumeState.SNAPSHOT_FAILED, "boom"), VolumeMode.DATA, True, "boom"),
        (snapshot(), VolumeMode.DATA, False, "snapshot.storage.k8s.io"),
        (snapshot(), VolumeMode.NONE, True, "asked for without data"),
    ],
)
def test_row_23_a_claim_that_is_provisioned_empty_says_why(
    entry: VolumeEntry, mode: VolumeMode, snapshots: bool, why: str
) -> None:
    made = plan(
        claim(),
        volume(),
        request=RestoreRequest(volumes=mode),
        of=manifest([entry]),
        to=target(classes=FAST, snapshots=snapshots),
    )
    planned = by_name(made)["PersistentVolumeClaim/data"]
    assert planned.volume is None
    assert not planned.keep_volume_name
    assert why in planned.reason
    assert (mode is VolumeMode.NONE) == (not made.warnings)


def test_row_23_an_existing_claim_keeps_its_data_and_the_plan_says_so() -> None:
    made = plan(
        claim(),
        of=manifest([snapshot()]),
        to=target(classes=FAST),
        existing={("", "PersistentVolumeClaim", "shop", "data"): Existing("u", "1", ())},
    )
    planned = by_name(made)["PersistentVolumeClaim/data"]
    assert planned.volume is None
    assert made.warnings == ("PersistentVolumeClaim shop/data exists: its data is not restored",)


def test_row_23_a_storage_class_that_nobody_has_is_told() -> None:
    made = plan(claim(), of=manifest([snapshot()]), request=RestoreRequest(map_storage_classes={"fast": "gone"}))
    assert any("StorageClass gone" in warning for warning in made.warnings)


def test_row_24_a_static_volume_goes_back_to_its_claim() -> None:
    made = plan(claim(), volume("Retain", dynamic=False), to=target(classes=FAST))
    assert by_name(made)["PersistentVolume/pv-1"].action is Action.CREATE
    planned = by_name(made)["PersistentVolumeClaim/data"]
    assert planned.keep_volume_name
    assert planned.reason == "keeps its volume pv-1"


def test_row_24_a_retained_volume_without_a_snapshot_is_restored_and_one_to_be_deleted_is_not() -> None:
    kept = plan(claim(), volume("Retain"), to=target(classes=FAST))
    assert by_name(kept)["PersistentVolume/pv-1"].action is Action.CREATE
    gone = plan(claim(), volume("Delete"), to=target(classes=FAST))
    assert by_name(gone)["PersistentVolume/pv-1"].action is Action.SKIP
    assert "provisioned empty" in by_name(gone)["PersistentVolumeClaim/data"].reason


def test_row_24_an_existing_volume_is_never_given_to_a_second_claim() -> None:
    made = plan(
        claim(),
        volume("Retain"),
        request=RestoreRequest(map_namespaces={"shop": "shop2"}),
        to=target({}, FAST),
        existing={("", "PersistentVolume", "", "pv-1"): Existing("u", "1", ())},
    )
    assert not by_name(made)["PersistentVolumeClaim/data"].keep_volume_name


@pytest.mark.parametrize(("policy", "action"), [(Conflict.PATCH, Action.PATCH), (Conflict.SKIP, Action.SKIP)])
def test_row_24_a_released_volume_is_given_back_to_its_claim_where_patching_is_allowed(
    policy: Conflict, action: Action
) -> None:
    released = Existing("u", "1", (), released=ReleasedVolume("shop", "data", "old-uid"))
    made = plan(
        claim(),
        volume("Retain"),
        request=RestoreRequest(conflict=policy),
        to=target(classes=FAST),
        existing={("", "PersistentVolume", "", "pv-1"): released},
    )
    persistent, bound = by_name(made)["PersistentVolume/pv-1"], by_name(made)["PersistentVolumeClaim/data"]
    assert persistent.action is action
    assert persistent.release_claim == bound.keep_volume_name == (policy is Conflict.PATCH)
    if policy is Conflict.SKIP:
        # Not an empty volume in place of one whose data is there: it fails and says how to get it.
        assert bound.action is Action.CONFLICT
        assert "Use the policy patch" in made.warnings[0]
    else:
        assert persistent.diff == (FieldChange(path="spec.claimRef.uid", before="old-uid"),)


def test_row_26_objects_of_nodes_are_left_out_with_the_reason() -> None:
    planned = by_name(plan(obj("Node", "n")))["Node/n"]
    assert planned.action is Action.SKIP
    assert "nodes" in planned.reason


def test_a_plan_survives_saving_and_holds_no_secret_value() -> None:
    hidden = FieldChange(path="data.p", before="hunter2", after="hunter3")
    made = plan(
        obj("Secret", "s", data={"p": "hunter3"}),
        obj("ConfigMap", "c"),
        request=RestoreRequest(conflict=Conflict.PATCH),
        existing={("", "Secret", "shop", "s"): Existing("u", "1", (hidden,))},
    )
    document = made.to_json()
    assert b"hunter" not in document
    assert RestorePlan.from_json(document) == made


@pytest.mark.parametrize("document", [b"", b"{}", b"[]", b'{"format": 1}', b"\xff"])
def test_a_file_that_is_no_plan_is_refused(document: bytes) -> None:
    with pytest.raises(PlanUnreadable):
        RestorePlan.from_json(document)


def test_a_plan_of_a_newer_format_is_refused() -> None:
    newer = msgspec.json.decode(plan(obj("ConfigMap", "c")).to_json()) | {"format": 99}
    with pytest.raises(PlanUnreadable, match="format 99"):
        RestorePlan.from_json(msgspec.json.encode(newer))


def chosen(selection: Selection) -> ChosenObjects:
    return ChosenObjects(selection, entries(), {"po": ("", "Pod"), "deploy": ("apps", "Deployment")})


@pytest.mark.parametrize(
    "spelling",
    ["Deployment", "deployments", "deployment", "deployments.apps", "Deployment.apps", "apps/v1/Deployment", "deploy"],
)
def test_kinds_are_spelled_as_in_kubectl(spelling: str) -> None:
    selection = chosen(Selection(include_kinds=(spelling,)))
    assert [entry.kind for entry in entries() if selection.kind(entry)] == ["Deployment"]


def test_an_unknown_kind_is_a_usage_error() -> None:
    with pytest.raises(SelectionInvalid, match="Deploymint"):
        chosen(Selection(include_kinds=("Deploymint",)))


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(), {"a/1", "a/2", "b/1", "/c"}),
        (Selection(include_namespaces=("a",)), {"a/1", "a/2"}),
        (Selection(include_namespaces=("a",), cluster_scoped=True), {"a/1", "a/2", "/c"}),
        (Selection(exclude_namespaces=("a*",)), {"b/1"}),
        (Selection(exclude_namespaces=("a*",), cluster_scoped=True), {"b/1", "/c"}),
        (Selection(selectors=("app=x",)), {"a/1"}),
        (Selection(selectors=("app=x", "app=y")), {"a/1", "b/1"}),
        (Selection(cluster_scoped=False), {"a/1", "a/2", "b/1"}),
        (Selection(include_kinds=("StorageClass",)), {"/c"}),
    ],
)
def test_a_selection_takes_what_it_says(selection: Selection, expected: set[str]) -> None:
    objects = [
        obj("ConfigMap", "1", namespace="a", metadata={"labels": {"app": "x"}}),
        obj("ConfigMap", "2", namespace="a"),
        obj("ConfigMap", "1", namespace="b", metadata={"labels": {"app": "y"}}),
        obj("StorageClass", "c", "storage.k8s.io"),
    ]
    known = {(entry.group, entry.kind): entry for entry in entries()}
    picked = chosen(selection)
    found = {
        f"{source.row.namespace}/{source.row.name}"
        for source in objects
        if picked.kind(known[source.row.group, source.row.kind]) and picked.object(source.row)
    }
    assert found == expected


@pytest.mark.parametrize("mapping", [{"a": ""}, {"": "b"}, {"a*": "b"}, {"a": "b/c"}])
def test_a_mapping_that_names_no_namespace_is_refused(mapping: dict[str, str]) -> None:
    with pytest.raises(SelectionInvalid):
        check_mapping(mapping)
