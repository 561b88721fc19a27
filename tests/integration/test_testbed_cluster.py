"""The test cluster is a real one: what a backup must cope with happens in it by itself."""

import contextlib
import http.client
import json
import socket
import ssl
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from strongroom.testbed.cluster import Testbed
from strongroom.testbed.errors import ComponentFailed, TestbedExists
from strongroom.testbed.options import TestbedOptions

TIMEOUT = "--timeout=60s"


def eventually(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def claim(name: str, storage_class: str, snapshot: str | None = None) -> dict[str, object]:
    spec: dict[str, object] = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": storage_class,
        "resources": {"requests": {"storage": "1Mi"}},
    }
    if snapshot:
        spec["dataSource"] = {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": snapshot}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


def create(cluster: Testbed, namespace: str, *documents: dict[str, object]) -> None:
    items = {"apiVersion": "v1", "kind": "List", "items": documents}
    cluster.kubectl("create", "-n", namespace, "-f", "-", stdin=json.dumps(items))


def volume_handle(cluster: Testbed, namespace: str, name: str) -> str:
    volume = cluster.kubectl("get", "pvc", name, "-n", namespace, "-o", "jsonpath={.spec.volumeName}")
    return cluster.kubectl("get", "pv", volume, "-o", "jsonpath={.spec.csi.volumeHandle}")


def config_map_value(cluster: Testbed, name: str) -> str:
    return cluster.kubectl("get", "configmap", name, "-o", "jsonpath={.data.value}")


def test_a_volume_restored_from_a_snapshot_holds_the_files_of_the_moment_of_the_snapshot(
    testbed: Testbed, namespace: str
) -> None:
    create(testbed, namespace, claim("data", "folder-immediate"))
    testbed.kubectl("wait", "pvc/data", "-n", namespace, "--for=jsonpath={.status.phase}=Bound", TIMEOUT)
    original = testbed.volume_path(volume_handle(testbed, namespace, "data"))
    (original / "ledger").write_text("before")
    snapshot: dict[str, object] = {
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshot",
        "metadata": {"name": "cut"},
        "spec": {"source": {"persistentVolumeClaimName": "data"}},
    }
    create(testbed, namespace, snapshot)
    testbed.kubectl("wait", "volumesnapshot/cut", "-n", namespace, "--for=jsonpath={.status.readyToUse}=true", TIMEOUT)
    (original / "ledger").write_text("after")
    create(testbed, namespace, claim("copy", "folder-immediate", snapshot="cut"))
    testbed.kubectl("wait", "pvc/copy", "-n", namespace, "--for=jsonpath={.status.phase}=Bound", TIMEOUT)
    copy = testbed.volume_path(volume_handle(testbed, namespace, "copy"))
    assert (copy / "ledger").read_text() == "before"
    assert (original / "ledger").read_text() == "after"


def test_a_claim_that_waits_for_its_consumer_is_bound_when_a_pod_uses_it(testbed: Testbed, namespace: str) -> None:
    create(testbed, namespace, claim("later", "folder-wait"), claim("now", "folder-immediate"))
    testbed.kubectl("wait", "pvc/now", "-n", namespace, "--for=jsonpath={.status.phase}=Bound", TIMEOUT)
    assert testbed.kubectl("get", "pvc", "later", "-n", namespace, "-o", "jsonpath={.status.phase}") == "Pending"
    pod: dict[str, object] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "consumer"},
        "spec": {
            "containers": [{"name": "main", "image": "none"}],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "later"}}],
        },
    }
    create(testbed, namespace, pod)
    testbed.kubectl("wait", "pod/consumer", "-n", namespace, "--for=condition=Ready", TIMEOUT)
    assert testbed.kubectl("get", "pvc", "later", "-n", namespace, "-o", "jsonpath={.status.phase}") == "Bound"


def test_workloads_run_jobs_complete_and_a_namespace_ends_with_its_claims(testbed: Testbed) -> None:
    namespace = f"workloads-{uuid.uuid4().hex[:6]}"
    testbed.kubectl("create", "namespace", namespace)
    labels = {"app": "sample"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "none"}]}}
    spec = {"replicas": 2, "selector": {"matchLabels": labels}, "template": template}
    job_template = {"spec": {**template["spec"], "restartPolicy": "Never"}}
    claim_template = claim("data", "folder-immediate")
    stateful = {**spec, "serviceName": "sample", "volumeClaimTemplates": [claim_template]}
    meta = {"name": "sample"}
    create(
        testbed,
        namespace,
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec},
        {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": meta, "spec": stateful},
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": {"template": job_template}},
    )
    testbed.kubectl("rollout", "status", "deployment/sample", "-n", namespace, TIMEOUT)
    testbed.kubectl("rollout", "status", "statefulset/sample", "-n", namespace, TIMEOUT)
    testbed.kubectl("wait", "job/sample", "-n", namespace, "--for=condition=Complete", TIMEOUT)
    folders = [testbed.volume_path(volume_handle(testbed, namespace, f"data-sample-{i}")) for i in range(2)]
    assert all(folder.is_dir() for folder in folders)
    testbed.kubectl("delete", "namespace", namespace, TIMEOUT)
    eventually(lambda: not any(folder.exists() for folder in folders), "the volumes are removed with their claims")


def test_a_request_without_credentials_is_refused(testbed: Testbed) -> None:
    connection = http.client.HTTPSConnection(
        testbed.server.removeprefix("https://"), context=ssl.create_default_context(cafile=str(testbed.ca_file))
    )
    connection.request("GET", "/api/v1/namespaces")
    assert connection.getresponse().status == 401
    connection.close()


def test_a_user_may_do_what_rbac_gives_to_them_and_no_more(testbed: Testbed, namespace: str) -> None:
    reader = testbed.make_client_cert("reader@example", ["auditors"])
    with pytest.raises(ComponentFailed, match="reader@example"):
        testbed.kubectl("get", "configmaps", "-n", namespace, kubeconfig=reader)
    testbed.kubectl("create", "role", "read", "-n", namespace, "--verb=list", "--resource=configmaps")
    testbed.kubectl("create", "rolebinding", "read", "-n", namespace, "--role=read", "--group=auditors")

    def allowed() -> bool:  # the authorizer follows the binding through a watch
        with contextlib.suppress(ComponentFailed):
            return "kube-root-ca.crt" in testbed.kubectl("get", "configmaps", "-n", namespace, kubeconfig=reader)
        return False

    eventually(allowed, "the role is given")
    with pytest.raises(ComponentFailed, match="secrets"):
        testbed.kubectl("get", "secrets", "-n", namespace, kubeconfig=reader)


def test_files_with_secrets_are_readable_by_their_owner_alone(testbed: Testbed) -> None:
    assert testbed.folder.stat().st_mode & 0o077 == 0
    private = [testbed.kubeconfig, *(testbed.folder / "pki").iterdir()]
    assert [path for path in private if path.stat().st_mode & 0o077] == []


def test_a_folder_in_use_is_left_as_it_is(testbed: Testbed, tmp_path: Path) -> None:
    with pytest.raises(TestbedExists, match="holds a test cluster"):
        Testbed.up(testbed.folder)
    (tmp_path / "letter").write_text("mine")
    with pytest.raises(TestbedExists, match="holds files"):
        Testbed.up(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letter"]
    assert testbed.status().ready


def api_service(group: str, service: str, port: int) -> dict[str, object]:
    reference = {"name": service, "namespace": "default", "port": port}
    spec = {"group": group, "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 10, "service": reference}
    metadata = {"name": f"v1.{group}"}
    return {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": metadata, "spec": spec}


def test_an_aggregated_server_behind_an_external_name_is_asked_and_a_dead_one_is_said_to_be_dead(
    own_testbed: Callable[..., Testbed],
) -> None:
    cluster = own_testbed(TestbedOptions(volumes=False))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        spec = {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]}
        service: dict[str, object] = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "here"}, "spec": spec}
        create(cluster, "default", service, api_service("live.test", "here", port), api_service("dead.test", "no", 443))
        listener.settimeout(60)
        listener.accept()[0].close()  # the API server came to ask; the TLS and HTTP of an answer are not our subject
    available = "jsonpath={.status.conditions[?(@.type=='Available')].reason}"
    cluster.kubectl("wait", "apiservice/v1.dead.test", "--for=condition=Available=False", TIMEOUT)
    assert cluster.kubectl("get", "apiservice", "v1.dead.test", "-o", available) == "ServiceNotFound"


def test_after_a_compaction_an_older_revision_is_gone(own_testbed: Callable[..., Testbed]) -> None:
    cluster = own_testbed(TestbedOptions(volumes=False))
    create(cluster, "default", api_service("dead.test", "no", 443))  # has no past that could be forgotten
    older = cluster.revision()
    path = f"/api/v1/namespaces?resourceVersion={older}&resourceVersionMatch=Exact"
    assert json.loads(cluster.kubectl("get", "--raw", path))["metadata"]["resourceVersion"] == str(older)
    cluster.kubectl("create", "configmap", "later")
    assert cluster.compact() > older
    with pytest.raises(ComponentFailed, match="too old"):
        cluster.kubectl("get", "--raw", path)


def test_etcd_put_back_knows_nothing_of_what_came_after_and_the_cluster_works(
    own_testbed: Callable[..., Testbed], tmp_path: Path
) -> None:
    cluster = own_testbed(TestbedOptions(etcd_servers_overrides=("/configmaps",)))
    cluster.kubectl("create", "configmap", "subject", "--from-literal=value=old")
    cluster.kubectl("create", "secret", "generic", "subject")
    cluster.save_etcd(tmp_path / "saved")
    saved_at = cluster.revision()
    cluster.kubectl("patch", "configmap", "subject", "-p", '{"data":{"value":"new"}}')
    cluster.kubectl("delete", "secret", "subject")
    for number in range(20):
        cluster.kubectl("create", "secret", "generic", f"later-{number}")
    beyond = cluster.revision()
    cluster.restore_etcd(tmp_path / "saved")
    assert saved_at <= cluster.revision() < beyond
    assert config_map_value(cluster, "subject") == "old"
    names = cluster.kubectl("get", "secrets", "-o", "name").split()
    assert names == ["secret/subject"]
    create(cluster, "default", claim("data", "folder-immediate"))
    cluster.kubectl("wait", "pvc/data", "--for=jsonpath={.status.phase}=Bound", TIMEOUT)


def test_resources_with_an_etcd_of_their_own_count_revisions_of_their_own(own_testbed: Callable[..., Testbed]) -> None:
    cluster = own_testbed(TestbedOptions(etcd_servers_overrides=("/configmaps",), volumes=False))
    cluster.kubectl("create", "configmap", "apart")
    apart = int(cluster.kubectl("get", "configmap", "apart", "-o", "jsonpath={.metadata.resourceVersion}"))
    cluster.kubectl("create", "secret", "generic", "main")
    main = int(cluster.kubectl("get", "secret", "main", "-o", "jsonpath={.metadata.resourceVersion}"))
    assert apart < 50 < main  # a fresh cluster makes hundreds of objects, and few ConfigMaps


def test_a_stopped_component_comes_back_with_its_data(own_testbed: Callable[..., Testbed]) -> None:
    cluster = own_testbed(TestbedOptions(volumes=False, audit=True, min_request_timeout_s=60))
    cluster.kubectl("create", "configmap", "kept", "--from-literal=value=yes")
    for component in ("kube-apiserver", "etcd"):
        cluster.stop(component, kill=True)
        assert cluster.pid(component) is None
        assert not cluster.status().ready
        cluster.start(component)
    assert config_map_value(cluster, "kept") == "yes"
    assert cluster.status().ready
    lines = cluster.audit_log.read_text().splitlines()
    assert any(json.loads(line)["requestURI"].endswith("/configmaps/kept") for line in lines)
