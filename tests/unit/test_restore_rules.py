"""The rows of the restore checklist that one object decides: what is dropped, kept, mapped."""

from typing import Any

import msgspec
import pytest

from strongroom.dataplane.restore.model import Action, Owner, PlannedObject, RestoreRequest, VolumeImport
from strongroom.dataplane.restore.rules.draft import Draft, Rule
from strongroom.dataplane.restore.rules.ownership import fields_to_put_back, has_applier, main_manager
from strongroom.dataplane.restore.rules.quantities import quantity_bytes
from strongroom.dataplane.restore.rules.table import never_restored, transform
from strongroom.dataplane.restore.writing import kind_of


def restored(
    obj: dict[str, Any],
    request: RestoreRequest | None = None,
    *,
    managed: list[dict[str, Any]] | None = None,
    new_uids: dict[str, str] | None = None,
    import_name: str = "",
    **planned: Any,
) -> dict[str, Any]:
    """Return what is sent to the target for the saved *obj*."""
    request = request or RestoreRequest()
    group, _, version = obj["apiVersion"].rpartition("/")
    metadata = obj["metadata"]
    namespace = metadata.get("namespace", "")
    plan = PlannedObject(
        number=0,
        group=group,
        version=version,
        kind=obj["kind"],
        plural="things",
        namespaced=bool(namespace),
        source_namespace=namespace,
        source_name=metadata["name"],
        namespace=request.target_namespace(namespace),
        name=metadata["name"],
        action=Action.CREATE,
        **planned,
    )
    managed_fields = msgspec.json.encode(managed) if managed is not None else None
    rule = Rule(request, plan, managed_fields, new_uids or {}, import_name)
    return transform(msgspec.json.encode(obj), rule).value()


def thing(kind: str, api_version: str = "v1", namespace: str = "shop", /, **fields: Any) -> dict[str, Any]:
    metadata = {"name": "thing", **({"namespace": namespace} if namespace else {}), **fields.pop("metadata", {})}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **fields}


def test_row_01_what_the_server_sets_is_dropped_and_the_rest_of_the_object_keeps_its_bytes() -> None:
    body = (
        b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"thing","namespace":"shop","uid":"u","generation":3,'
        b'"resourceVersion":"7","creationTimestamp":"2026-01-01T00:00:00Z","deletionTimestamp":"2026-01-01T00:00:00Z",'
        b'"deletionGracePeriodSeconds":30,"selfLink":"/x","generateName":"th","labels":{"a":"b"}},"data":{"n": 1.0 }}'
    )
    planned = PlannedObject(
        number=0,
        group="",
        version="v1",
        kind="ConfigMap",
        plural="configmaps",
        namespaced=True,
        source_namespace="shop",
        source_name="thing",
        namespace="shop",
        name="thing",
        action=Action.CREATE,
    )
    assert transform(body, Rule(RestoreRequest(), planned)).encode() == (
        b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"thing","namespace":"shop","labels":{"a":"b"}},'
        b'"data":{"n": 1.0 }}'
    )


def test_row_02_owner_references_get_the_new_uids_and_are_dropped_with_a_note_only_without_an_owner() -> None:
    references = [
        {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "old-1", "controller": True},
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "there", "uid": "old-2"},
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "failed", "uid": "old-3"},
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "unknown", "uid": "old-4"},
    ]
    obj = thing("Secret", metadata={"ownerReferences": references})
    owners = (Owner(source_uid="old-1"), Owner(source_uid="old-2", uid="kept-2"), Owner(source_uid="old-3"))
    got = restored(obj, new_uids={"old-1": "new-1"}, owners=owners)
    assert [reference["uid"] for reference in got["metadata"]["ownerReferences"]] == ["new-1", "kept-2"]
    assert got["metadata"]["ownerReferences"][0]["controller"] is True


def test_row_02_a_deferred_owner_is_left_out_of_the_create() -> None:
    reference = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "old"}
    obj = thing("PersistentVolumeClaim", metadata={"ownerReferences": [reference]}, spec={})
    got = restored(obj, new_uids={"old": "new"}, owners=(Owner(source_uid="old", deferred=True),))
    assert "ownerReferences" not in got["metadata"]


def test_row_03_finalizers_stay_unless_asked_or_of_an_action_under_way() -> None:
    names = ["example.test/guard", "foregroundDeletion", "snapshot.storage.kubernetes.io/pvc-as-source-protection"]
    obj = thing("ConfigMap", metadata={"finalizers": names})
    assert restored(obj)["metadata"]["finalizers"] == ["example.test/guard"]
    assert "finalizers" not in restored(obj, RestoreRequest(drop_finalizers=True))["metadata"]


def test_row_04_the_creating_manager_is_the_one_that_owns_most() -> None:
    managed = msgspec.json.encode(
        [
            {"manager": "small", "operation": "Update", "fieldsV1": {"f:a": {}}},
            {"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {"f:template": {}}}},
            {
                "manager": "kcm",
                "operation": "Update",
                "subresource": "status",
                "fieldsV1": {"f:status": {"f:x" * 30: 1}},
            },
        ]
    )
    assert main_manager(managed) == "kubectl"
    assert not has_applier(managed)
    assert main_manager(None) == "strongroom"


def test_row_04_where_a_manager_applies_all_entries_but_those_of_the_status_are_put_back() -> None:
    entries = [
        {"manager": "argocd", "operation": "Apply", "time": "2026-01-01T00:00:00Z", "fieldsV1": {"f:spec": {}}},
        {"manager": "kcm", "operation": "Update", "subresource": "status", "fieldsV1": {"f:status": {}}},
    ]
    managed = msgspec.json.encode(entries)
    assert has_applier(managed)
    kept = [msgspec.json.decode(raw) for raw in fields_to_put_back(managed, with_status=False)]
    assert kept == entries[:1]
    assert len(fields_to_put_back(managed, with_status=True)) == 2


def test_row_06_status_is_never_sent_with_the_object() -> None:
    assert "status" not in restored(thing("Widget", "example.test/v1", status={"phase": "Ready"}))


def test_row_07_no_label_or_annotation_of_ours_is_added() -> None:
    got = restored(
        thing("ConfigMap", metadata={"labels": {"a": "b"}}), RestoreRequest(map_namespaces={"shop": "shop2"})
    )
    assert got["metadata"] == {"name": "thing", "namespace": "shop2", "labels": {"a": "b"}}


def test_row_09_a_namespace_keeps_labels_and_annotations_and_nothing_of_the_server() -> None:
    labels = {"team": "a", "kubernetes.io/metadata.name": "thing"}
    obj = thing(
        "Namespace", "v1", "", metadata={"labels": labels, "annotations": {"x": "y"}}, spec={"finalizers": ["k"]}
    )
    got = restored(obj)
    assert got["metadata"] == {"name": "thing", "labels": {"team": "a"}, "annotations": {"x": "y"}}
    assert "spec" not in got


def test_row_10_a_crd_has_its_conversion_service_mapped_and_old_fields_folded() -> None:
    client = {"service": {"namespace": "shop", "name": "convert"}, "caBundle": "Q0E="}
    spec = {"preserveUnknownFields": True, "conversion": {"strategy": "Webhook", "webhook": {"clientConfig": client}}}
    obj = thing("CustomResourceDefinition", "apiextensions.k8s.io/v1", "", spec=spec)
    got = restored(obj, RestoreRequest(map_namespaces={"shop": "shop2"}))["spec"]
    assert got["preserveUnknownFields"] is False
    assert got["conversion"]["webhook"]["clientConfig"] == {
        **client,
        "service": {"namespace": "shop2", "name": "convert"},
    }


def pod(**spec: Any) -> dict[str, Any]:
    return thing("Pod", spec={"serviceAccountName": "builder", "containers": [{"name": "c"}], **spec})


def test_row_12_a_pod_loses_its_node_its_resolved_priority_and_ephemeral_containers() -> None:
    spec = restored(
        pod(nodeName="n1", priority=10, preemptionPolicy="Never", priorityClassName="high", ephemeralContainers=[{}])
    )["spec"]
    assert spec == {"serviceAccountName": "builder", "containers": [{"name": "c"}], "priorityClassName": "high"}


def test_row_12_old_token_volumes_go_from_all_containers_and_projected_ones_stay() -> None:
    volumes = [
        {"name": "builder-token-x7k2p", "secret": {"secretName": "builder-token-x7k2p"}},
        {"name": "kube-api-access-9xk2p", "projected": {"sources": []}},
        {"name": "builder-token-store", "secret": {"secretName": "mine"}},
    ]
    mounts = [{"name": volume["name"], "mountPath": f"/{number}"} for number, volume in enumerate(volumes)]
    spec = restored(
        pod(
            volumes=volumes,
            containers=[{"name": "c", "volumeMounts": mounts}],
            initContainers=[{"name": "i", "volumeMounts": mounts}],
        )
    )["spec"]
    names = ["kube-api-access-9xk2p", "builder-token-store"]
    assert [volume["name"] for volume in spec["volumes"]] == names
    for part in ("containers", "initContainers"):
        assert [mount["name"] for mount in spec[part][0]["volumeMounts"]] == names


def test_row_14_a_job_loses_the_uid_in_selector_and_labels() -> None:
    labels = {"controller-uid": "u", "batch.kubernetes.io/controller-uid": "u", "app": "x"}
    spec = {
        "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}},
        "template": {"metadata": {"labels": dict(labels)}, "spec": {}},
    }
    got = restored(thing("Job", "batch/v1", metadata={"labels": dict(labels)}, spec=spec))
    assert got["metadata"]["labels"] == {"app": "x"}
    assert "selector" not in got["spec"]
    assert got["spec"]["template"]["metadata"]["labels"] == {"app": "x"}


def test_row_14_a_job_with_a_selector_of_its_author_keeps_it() -> None:
    spec = {"manualSelector": True, "selector": {"matchLabels": {"controller-uid": "mine"}}}
    assert restored(thing("Job", "batch/v1", spec=spec))["spec"] == spec


def test_row_15_cron_jobs_are_suspended_where_asked_and_only_then() -> None:
    obj = thing("CronJob", "batch/v1", spec={"schedule": "* * * * *", "suspend": False})
    assert restored(obj)["spec"]["suspend"] is False
    assert restored(obj, RestoreRequest(suspend_cronjobs=True))["spec"]["suspend"] is True


def service(spec: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return thing("Service", metadata=metadata, spec=spec)


ALLOCATED = {
    "type": "NodePort",
    "clusterIP": "10.0.0.7",
    "clusterIPs": ["10.0.0.7"],
    "ipFamilies": ["IPv4"],
    "ipFamilyPolicy": "SingleStack",
    "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}, {"port": 443, "protocol": "TCP", "nodePort": 30443}],
}


def test_row_16_addresses_families_and_ports_that_were_allocated_are_dropped() -> None:
    spec = restored(service(ALLOCATED))["spec"]
    assert spec == {"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}, {"port": 443, "protocol": "TCP"}]}


def test_row_16_a_node_port_of_the_last_applied_configuration_is_kept() -> None:
    applied = msgspec.json.encode({"spec": {"ports": [{"port": 80, "nodePort": 30080}, {"port": 443}]}}).decode()
    obj = service(ALLOCATED, annotations={"kubectl.kubernetes.io/last-applied-configuration": applied})
    assert [port.get("nodePort") for port in restored(obj)["spec"]["ports"]] == [30080, None]


def test_row_16_a_node_port_that_a_manager_owns_is_kept() -> None:
    key = 'k:{"port":443,"protocol":"TCP"}'
    managed = [{"manager": "m", "fieldsV1": {"f:spec": {"f:ports": {key: {"f:nodePort": {}}}, "f:ipFamilies": {}}}}]
    spec = restored(service(ALLOCATED), managed=managed)["spec"]
    assert [port.get("nodePort") for port in spec["ports"]] == [None, 30443]
    assert spec["ipFamilies"] == ["IPv4"]


def test_row_16_all_node_ports_are_kept_where_asked() -> None:
    spec = restored(service(ALLOCATED), RestoreRequest(preserve_node_ports=True))["spec"]
    assert [port["nodePort"] for port in spec["ports"]] == [30080, 30443]


def test_row_16_a_headless_service_stays_headless_and_an_external_name_is_untouched() -> None:
    headless = {"clusterIP": "None", "clusterIPs": ["None"], "ports": []}
    assert restored(service(headless))["spec"] == headless
    external = {"type": "ExternalName", "externalName": "example.test", "ipFamilies": ["IPv4"]}
    assert restored(service(external))["spec"] == external


def test_row_18_a_hand_made_token_is_emptied_for_the_targets_controller() -> None:
    annotations = {"kubernetes.io/service-account.name": "builder", "kubernetes.io/service-account.uid": "u"}
    obj = thing(
        "Secret",
        metadata={"annotations": annotations},
        type="kubernetes.io/service-account-token",
        data={"token": "dA==", "ca.crt": "Yw==", "namespace": "c2hvcA==", "mine": "bQ=="},
    )
    got = restored(obj)
    assert got["metadata"]["annotations"] == {"kubernetes.io/service-account.name": "builder"}
    assert got["data"] == {"mine": "bQ=="}
    opaque = thing("Secret", type="Opaque", data={"token": "dA=="})
    assert restored(opaque)["data"] == {"token": "dA=="}


def test_row_19_a_service_account_loses_automatic_tokens_and_keeps_pull_secrets() -> None:
    obj = thing(
        "ServiceAccount",
        secrets=[{"name": "thing-token-bcdfg"}, {"name": "thing-token-longer-name"}, {"name": "mine"}],
        imagePullSecrets=[{"name": "pull"}],
    )
    got = restored(obj)
    assert [secret["name"] for secret in got["secrets"]] == ["thing-token-longer-name", "mine"]
    assert got["imagePullSecrets"] == [{"name": "pull"}]


@pytest.mark.parametrize("kind", ["RoleBinding", "ClusterRoleBinding"])
def test_row_20_subjects_of_bindings_follow_the_mapping(kind: str) -> None:
    subjects = [{"kind": "ServiceAccount", "name": "a", "namespace": "shop"}, {"kind": "User", "name": "u"}]
    obj = thing(kind, "rbac.authorization.k8s.io/v1", subjects=subjects, roleRef={"name": "r"})
    got = restored(obj, RestoreRequest(map_namespaces={"shop": "shop2"}))
    assert [subject.get("namespace") for subject in got["subjects"]] == ["shop2", None]


def test_row_21_and_22_services_behind_webhooks_and_api_services_follow_the_mapping() -> None:
    request = RestoreRequest(map_namespaces={"shop": "shop2"})
    hooks = [{"name": "w", "clientConfig": {"service": {"namespace": "shop", "name": "s"}}}]
    webhook = thing("MutatingWebhookConfiguration", "admissionregistration.k8s.io/v1", "", webhooks=hooks)
    assert restored(webhook, request)["webhooks"][0]["clientConfig"]["service"]["namespace"] == "shop2"
    api = thing("APIService", "apiregistration.k8s.io/v1", "", spec={"service": {"namespace": "shop", "name": "s"}})
    assert restored(api, request)["spec"]["service"]["namespace"] == "shop2"


def claim(**spec: Any) -> dict[str, Any]:
    annotations = {
        "pv.kubernetes.io/bind-completed": "yes",
        "pv.kubernetes.io/bound-by-controller": "yes",
        "volume.beta.kubernetes.io/storage-provisioner": "d",
        "volume.kubernetes.io/storage-provisioner": "d",
        "volume.kubernetes.io/selected-node": "n",
        "mine": "x",
    }
    fields = {"volumeName": "pv-1", "storageClassName": "fast", "resources": {"requests": {"storage": "1Gi"}}}
    return thing("PersistentVolumeClaim", metadata={"annotations": annotations}, spec={**fields, **spec})


def test_row_23_a_claim_is_filled_from_its_snapshot_at_least_as_large() -> None:
    volume = VolumeImport(driver="d", handle="h", restore_size_bytes=2 * 2**30)
    got = restored(claim(dataSource={"kind": "PersistentVolumeClaim", "name": "old"}), volume=volume, import_name="imp")
    assert got["metadata"]["annotations"] == {"mine": "x"}
    assert got["spec"] == {
        "storageClassName": "fast",
        "resources": {"requests": {"storage": str(2 * 2**30)}},
        "dataSource": {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "imp"},
    }
    larger = restored(claim(resources={"requests": {"storage": "3Gi"}}), volume=volume, import_name="imp")
    assert larger["spec"]["resources"]["requests"]["storage"] == "3Gi"


def test_row_23_storage_classes_are_mapped_in_claims_and_claim_templates() -> None:
    request = RestoreRequest(map_storage_classes={"fast": "slow"})
    assert restored(claim(), request)["spec"]["storageClassName"] == "slow"
    template = {"metadata": {"name": "data"}, "spec": {"storageClassName": "fast"}}
    stateful = thing("StatefulSet", "apps/v1", spec={"volumeClaimTemplates": [template]})
    assert restored(stateful, request)["spec"]["volumeClaimTemplates"][0]["spec"]["storageClassName"] == "slow"


def test_row_24_a_static_volume_is_given_back_to_its_claim_by_name() -> None:
    reference = {"namespace": "shop", "name": "data", "uid": "u", "resourceVersion": "7"}
    volume = thing("PersistentVolume", "v1", "", spec={"claimRef": reference, "nfs": {"path": "/x"}})
    got = restored(volume, RestoreRequest(map_namespaces={"shop": "shop2"}))
    assert got["spec"] == {"claimRef": {"namespace": "shop2", "name": "data"}, "nfs": {"path": "/x"}}
    kept = restored(claim(), keep_volume_name=True)
    assert kept["spec"]["volumeName"] == "pv-1"


@pytest.mark.parametrize(
    ("group", "kind"),
    [
        ("", "Node"),
        ("", "Event"),
        ("events.k8s.io", "Event"),
        ("coordination.k8s.io", "Lease"),
        ("storage.k8s.io", "CSINode"),
        ("storage.k8s.io", "VolumeAttachment"),
        ("authentication.k8s.io", "TokenReview"),
        ("snapshot.storage.k8s.io", "VolumeSnapshot"),
        ("snapshot.storage.k8s.io", "VolumeSnapshotContent"),
    ],
)
def test_row_25_and_26_kinds_of_nodes_moments_and_foreign_snapshots_are_never_restored(group: str, kind: str) -> None:
    assert never_restored(group, kind)
    assert not never_restored("snapshot.storage.k8s.io", "VolumeSnapshotClass")
    assert not never_restored("", "ConfigMap")


@pytest.mark.parametrize("name", ["system:controller:x", "a" * 253, "UPPER.case", "..", "a%2fb"])
def test_row_32_names_stay_as_they_are_and_never_reach_a_path_unescaped(name: str) -> None:
    obj = thing("ClusterRole", "rbac.authorization.k8s.io/v1", "")
    obj["metadata"]["name"] = name
    assert restored(obj)["metadata"]["name"] == name
    planned = PlannedObject(
        number=0,
        group="rbac.authorization.k8s.io",
        version="v1",
        kind="ClusterRole",
        plural="clusterroles",
        namespaced=False,
        source_name=name,
        name=name,
        action=Action.CREATE,
    )
    # Objects are read and created in collections: the name stands in the body and in selectors only.
    assert kind_of(planned).path() == "/apis/rbac.authorization.k8s.io/v1/clusterroles"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1Gi", 2**30), ("1500M", 1_500_000_000), ("1e3", 1000), ("0.5Gi", 2**29), ("100m", 1), ("7", 7), ("1E", 10**18)],
)
def test_quantities_are_read_as_the_api_server_reads_them(text: str, expected: int) -> None:
    assert quantity_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "Gi", "1 Gi", "1X", "1e", "--1"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        quantity_bytes(text)


def test_a_field_that_no_rule_asks_for_is_never_decoded() -> None:
    draft = Draft(b'{"apiVersion":"v1","kind":"X","metadata":{"name":"n"},"spec":{"a":[1,2]}}', "X", "", "n")
    draft.encode()
    assert isinstance(draft.top["spec"], msgspec.Raw)
