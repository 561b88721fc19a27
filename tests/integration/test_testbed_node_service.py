"""A control plane protects a cluster whose extension runs there as a pod: from the vault to the container and back."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from strongroom.controlplane.clusters.manifests import EXTENSION as POD
from strongroom.controlplane.clusters.manifests import NAMESPACE
from strongroom.testbed.cluster import Testbed
from strongroom.testbed.python_images import EXTENSION as IMAGE
from strongroom.testbed.python_images import extension_image
from strongroom.testbed.stores import Azurite, azurite

from ..e2e.service_stage import CLUSTER, EXTENSION, GROUP, INSTANCE, SNAPSHOTS, VAULT, Stage
from ..serving import running_server
from .clusters_stage import clean
from .node_stage import claim, create, eventually, pod, run

NEW = ("--cluster", CLUSTER, "--policy", "often", "--snapshot-resource-group", SNAPSHOTS)
# In the restored pod too: there it finds the file and leaves it.
WRITE = ("sh", "-c", "test -e /data/f || echo before >/data/f; sleep 100000")


@pytest.fixture
def store() -> Iterator[Azurite]:
    with azurite() as server:
        yield server


@pytest.fixture
def stage(node_testbed: Testbed, store: Azurite, tmp_path: Path) -> Iterator[Stage]:
    """A server, and a cluster that is connected to it. The server stores where Azurite listens, pods by a forwarder."""
    clean(node_testbed)
    node_testbed.load_image(extension_image())
    url = store.make_container("backups")
    address = node_testbed.expose(int(store.endpoint.rpartition(":")[2]))
    with running_server(tmp_path / "server") as server:
        made = Stage(server.home.parent / "ready.json", node_testbed)
        key = store.environment["AZURE_STORAGE_ACCOUNT_KEY"]
        made.prepare({"url": url.replace("/backups?", "?"), "credentials": {"accountKey": key}})
        made.connect(mode="inCluster", image=IMAGE, clusterEndpoint=f"http://{address}")
        yield made
    clean(node_testbed)
    node_testbed.kubectl("delete", "namespace", "shop", "copy", "--ignore-not-found", "--wait=false")


def there(cluster: Testbed, *words: str) -> Any:
    return json.loads(cluster.kubectl("get", *words, "-o", "json", "--ignore-not-found") or "{}")


def test_a_cluster_is_backed_up_and_restored_by_a_pod_that_the_server_installed(
    node_testbed: Testbed, stage: Stage, store: Azurite
) -> None:
    own = ("-n", NAMESPACE)
    (extension,) = there(node_testbed, "pods", *own)["items"]
    uid = extension["metadata"]["uid"]
    assert there(node_testbed, "lease", POD, *own)["spec"]["holderIdentity"].startswith(f"pod:{uid}/")
    assert not processes_with("--pipe", str(stage.ready_file.parent)), "this server hosts nothing"
    with stage.session() as session:
        installed = session.get(f"{stage.cluster_id(session)}/providers/{EXTENSION}")
    assert installed["properties"]["provisioningState"] == "Succeeded"
    assert [each["code"] for each in installed["properties"]["statuses"]] == ["Installed"]

    node_testbed.kubectl("create", "namespace", "shop")
    node_testbed.kubectl("create", "configmap", "settings", "-n", "shop", "--from-literal=greeting=hello")
    create(node_testbed, "shop", claim("data"))
    run(node_testbed, "shop", pod("writer", *WRITE, claim="data"))
    stage.document("vault", "create", VAULT, "-g", GROUP)
    stage.document("policy", "create", "often", "--every", "4h", "--keep", "3d")
    stage.trust()
    stage.document("instance", "grant", "--cluster", CLUSTER, "--snapshot-resource-group", SNAPSHOTS)
    stage.document("instance", "create", INSTANCE, *NEW, "--include-namespace", "shop")
    done = stage.document("instance", "backup", INSTANCE)
    assert done["properties"]["status"] == "Completed", done
    backup = there(node_testbed, "backups", *own)["items"][0]
    assert backup["status"]["phase"] == "Completed"
    point = backup["status"]["recoveryPointId"]

    node_testbed.kubectl("exec", "writer", "-n", "shop", "--", "sh", "-c", "echo changed >/data/f")
    stage.document("instance", "grant", INSTANCE, "--target", CLUSTER)
    back = ("instance", "restore", INSTANCE, "--point", "latest", "--map-namespace", "shop=copy")
    restored = stage.document(*back, "--include-namespace", "shop")
    assert restored["properties"]["status"] == "Completed", restored
    assert there(node_testbed, "restores", *own)["items"][0]["spec"]["recoveryPointId"] == point
    assert there(node_testbed, "configmap", "settings", "-n", "copy")["data"] == {"greeting": "hello"}

    def is_back() -> bool:
        said = node_testbed.kubectl("get", "pod/writer", "-n", "copy", "-o", "jsonpath={.status.phase}")
        return said == "Running"

    eventually(is_back, "the restored pod runs", 120)
    assert node_testbed.kubectl("exec", "writer", "-n", "copy", "--", "cat", "/data/f").strip() == "before"
    # The same pod all the while; and when the extension is deleted, it goes.
    assert [each["metadata"]["uid"] for each in there(node_testbed, "pods", *own)["items"]] == [uid]
    instance = stage.document("instance", "show", INSTANCE)["id"]
    with stage.session() as session:
        session.delete(instance)
        session.delete(f"{stage.cluster_id(session)}/providers/{EXTENSION}")
    assert node_testbed.kubectl("get", "deployments,pods,services,networkpolicies", *own, "-o", "name") == ""


def processes_with(*words: str) -> list[int]:
    """Return the numbers of this machine's processes that have all of *words* in their command lines."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                line = (folder / "cmdline").read_bytes().decode(errors="replace")
            except OSError:  # ended meanwhile
                continue
            if all(word in line for word in words):
                found.append(int(folder.name))
    return found
