"""The extension as a pod of a connected cluster: made, looked at, changed and removed with the installer's rights.

KWOK plays the pods here; tests/integration/test_testbed_node_service.py runs a real one.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from strongroom.controlplane.clusters import manifests
from strongroom.controlplane.clusters.access import ClusterAccess
from strongroom.controlplane.clusters.connect import connect
from strongroom.controlplane.clusters.errors import ClusterForbidden, ExtensionUnhealthy
from strongroom.controlplane.clusters.in_cluster import wait_for_pod
from strongroom.controlplane.clusters.installer import (
    ExtensionSettings,
    Mode,
    disable_restore,
    enable_restore,
    extension_health,
    install_extension,
    list_location,
    remove_extension,
)
from strongroom.controlplane.clusters.manifests import EXTENSION, NAMESPACE
from strongroom.controlplane.clusters.workload import Workload
from strongroom.controlplane.state.times import now
from strongroom.testbed.cluster import Testbed
from strongroom.testbed.sharing import shared_testbed

from .clusters_stage import admin_of, got, until

IN_CLUSTER = ExtensionSettings(mode=Mode.IN_CLUSTER, storage_locations=("first",), hook_namespaces=("default",))
PARTS = "deployments,services,networkpolicies,pods"


@pytest.fixture(scope="module")
def cluster(testbeds_folder: Path) -> Iterator[Testbed]:
    """A cluster of this file's own: connecting writes things that stand for the whole cluster."""
    with shared_testbed(testbeds_folder / "clusters-in-cluster") as testbed:
        yield testbed


@pytest.fixture
async def access(cluster: Testbed) -> ClusterAccess:
    return (await connect(admin_of(cluster))).access()


def parts(cluster: Testbed) -> set[str]:
    """Return the kinds of what there is of the pod in our namespace."""
    names = cluster.kubectl("get", PARTS, "-n", NAMESPACE, "-o", "name").split()
    assert all(EXTENSION in name for name in names)
    return {name.partition("/")[0].partition(".")[0] for name in names}


def listed(cluster: Testbed) -> list[str]:
    """Return the accounts of which the connector may have tokens."""
    rules = got(cluster, "role", manifests.CONNECTOR, "-n", NAMESPACE)["rules"] or []
    return [name for rule in rules for name in rule["resourceNames"]]


async def test_the_pod_is_made_changed_moved_to_the_server_and_back_and_removed(
    cluster: Testbed, access: ClusterAccess
) -> None:
    await install_extension(access, ExtensionSettings())
    assert EXTENSION in listed(cluster)
    await install_extension(access, IN_CLUSTER, Workload(image="registry.example/extension:1"))
    assert parts(cluster) == {"deployment", "service", "networkpolicy", "pod"}
    # The server has no token of a pod's account, and the connector gets none: design.md, section 8.
    assert EXTENSION not in listed(cluster)
    with pytest.raises(ClusterForbidden):
        await access.token(EXTENSION)

    health = await extension_health(access)
    assert health.healthy
    assert health.settings is not None
    assert health.settings.mode is Mode.IN_CLUSTER
    # KWOK's pod does nothing: no process renews the lease.
    assert [line.partition(":")[0] for line in (await extension_health(access, now=now())).missing] == [
        "a heartbeat of the extension"
    ]
    assert (await list_location(access, "second")).storage_locations == ("first", "second")
    await enable_restore(access)
    assert (await extension_health(access)).restore_enabled
    await disable_restore(access)

    await install_extension(access, IN_CLUSTER, Workload(image="registry.example/extension:2"))
    deployment = got(cluster, "deployment", EXTENSION, "-n", NAMESPACE)
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry.example/extension:2"
    cluster.kubectl("delete", "deployment", EXTENSION, "-n", NAMESPACE)
    assert (await extension_health(access)).missing == (f"a pod of the Deployment {EXTENSION} that is ready",)
    await install_extension(access, IN_CLUSTER, Workload(image="registry.example/extension:2"))
    assert (await extension_health(access)).healthy

    await install_extension(access, ExtensionSettings())
    assert parts(cluster) == set()
    assert (await extension_health(access)).healthy
    await install_extension(access, IN_CLUSTER, Workload(image="registry.example/extension:2"))
    await remove_extension(access)
    assert parts(cluster) == set()
    assert not (await extension_health(access)).installed


async def test_a_pod_that_does_not_begin_is_told_with_what_the_cluster_says_of_it(
    cluster: Testbed, access: ClusterAccess
) -> None:
    await install_extension(access, IN_CLUSTER, Workload(image="registry.example/extension:1"))
    async with access.api(manifests.INSTALLER) as api:
        patch = '{"spec": {"template": {"spec": {"nodeSelector": {"there-is": "none"}}}}}'
        cluster.kubectl("patch", "deployment", EXTENSION, "-n", NAMESPACE, "-p", patch)
        said = ""

        async def is_told() -> bool:
            nonlocal said
            try:
                await wait_for_pod(api, seconds=0)
            except ExtensionUnhealthy as error:
                said = error.message
            return "Unschedulable: " in said

        await until(is_told, 60)
        assert "didn't match Pod's node affinity/selector" in said
    await remove_extension(access)


async def test_a_cluster_that_was_connected_before_pods_were_known_is_to_be_connected_again(
    cluster: Testbed, access: ClusterAccess
) -> None:
    before = got(cluster, "role", manifests.INSTALLER, "-n", NAMESPACE)["rules"]
    old = [rule for rule in before if not {"apps", "networking.k8s.io"} & set(rule["apiGroups"])]
    patch = [{"op": "replace", "path": "/rules", "value": old}]
    cluster.kubectl("patch", "role", manifests.INSTALLER, "-n", NAMESPACE, "--type=json", "-p", json.dumps(patch))
    with pytest.raises(ClusterForbidden, match=r"deployments|networkpolicies|services"):
        await install_extension(access, IN_CLUSTER, Workload())
    await connect(admin_of(cluster))
    await install_extension(access, IN_CLUSTER, Workload())
    await remove_extension(access)
