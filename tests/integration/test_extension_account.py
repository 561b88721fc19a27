"""The extension works with the rights that connecting and installing give it, and a restore only once it is set up."""

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from strongroom.controlplane.clusters.connect import connect
from strongroom.controlplane.clusters.installer import ExtensionSettings, enable_restore, install_extension
from strongroom.controlplane.clusters.manifests import EXTENSION, NAMESPACE
from strongroom.dataplane.repository.prune import delete_point
from strongroom.extension.api.status import DeleteBackupStatus, Phase
from strongroom.testbed.cluster import Testbed
from strongroom.testbed.errors import ComponentFailed
from strongroom.testbed.sharing import shared_testbed

from .clusters_stage import admin_of
from .extension_stage import (
    LOCATION,
    Stage,
    backup,
    claim,
    config_map,
    eventually,
    get,
    make_account,
    new_name,
    put,
    volume_folder,
)


async def may_create(testbed: Testbed) -> bool:
    """Say whether the API server has seen the binding that lets the extension restore."""
    account = f"--as=system:serviceaccount:{NAMESPACE}:{EXTENSION}"
    with contextlib.suppress(ComponentFailed):
        return testbed.kubectl("auth", "can-i", "create", "configmaps", "-n", "shop", account).strip() == "yes"
    return False


@pytest.fixture(scope="module")
def testbed(testbeds_folder: Path) -> Iterator[Testbed]:
    """A cluster of this file's own: one extension works in a cluster."""
    with shared_testbed(testbeds_folder / "extension-account") as cluster:
        yield cluster


async def test_backup_restore_and_deletion_with_the_extensions_own_account(testbed: Testbed, tmp_path: Path) -> None:
    access = (await connect(admin_of(testbed))).access()
    await install_extension(access, ExtensionSettings())
    token = await access.token(EXTENSION)
    stage = await Stage.build(testbed, tmp_path, token.text)
    try:
        testbed.kubectl("create", "namespace", "shop")
        put(testbed, "shop", config_map("settings", colour="blue"), claim("data"))
        (await volume_folder(testbed, "shop", "data") / "file").write_bytes(b"precious")
        checked = await stage.back_up("shop", dryRun=True)
        assert (checked.phase, checked.error, checked.warnings) == (Phase.COMPLETED, None, ())
        status = await stage.back_up("shop")
        assert (status.phase, status.error, status.warnings) == (Phase.COMPLETED, None, ())
        second = await stage.back_up("shop")
        manifest = (await (await stage.repository()).point(second.recovery_point_id)).manifest
        assert manifest.incremental.base == status.recovery_point_id

        early = await stage.restore(status.recovery_point_id, {"shop": "too-early"})
        assert early.phase is Phase.FAILED
        await enable_restore(access)
        await eventually(lambda: may_create(testbed))
        restored = await stage.restore(status.recovery_point_id, {"shop": "shop2"})
        assert (restored.phase, restored.error, restored.warnings) == (Phase.COMPLETED, None, ())
        assert get(testbed, "configmap", "settings", "-n", "shop2")["data"] == {"colour": "blue"}
        assert (await volume_folder(testbed, "shop2", "data") / "file").read_bytes() == b"precious"

        await delete_point(await stage.repository(), second.recovery_point_id)
        document = {**backup(new_name(), "shop"), "kind": "DeleteBackup"}
        document["spec"] = {"storageLocation": LOCATION, "recoveryPointId": second.recovery_point_id}
        deleted = await stage.run(document)
        assert isinstance(deleted, DeleteBackupStatus)
        assert (deleted.phase, deleted.deleted, deleted.not_deleted) == (Phase.COMPLETED, 1, ())
    finally:
        await stage.extension.stop()


@pytest.fixture
def narrow_token(testbed: Testbed) -> Iterator[str]:
    """The token of an account that may do all in our namespace, and elsewhere list namespaces and ConfigMaps alone."""
    make_account(testbed, "stage")  # makes the namespace
    name = f"narrow-{uuid.uuid4().hex[:6]}"
    testbed.kubectl("create", "serviceaccount", name, "-n", NAMESPACE)
    account = f"--serviceaccount={NAMESPACE}:{name}"
    testbed.kubectl("create", "clusterrole", name, "--verb=list", "--resource=namespaces,configmaps")
    testbed.kubectl("create", "clusterrolebinding", name, f"--clusterrole={name}", account)
    testbed.kubectl("create", "rolebinding", name, "--clusterrole=cluster-admin", account, "-n", NAMESPACE)
    yield testbed.kubectl("create", "token", name, "-n", NAMESPACE).strip()
    testbed.kubectl("delete", "clusterrole,clusterrolebinding", name)
    testbed.kubectl("delete", "serviceaccount,rolebinding", name, "-n", NAMESPACE)


async def test_a_dry_run_names_every_kind_that_may_not_be_listed(
    testbed: Testbed, tmp_path: Path, namespace: str, narrow_token: str
) -> None:
    stage = await Stage.build(testbed, tmp_path, narrow_token)
    try:
        kinds = ["v1/ConfigMap", "v1/Secret", "apps/Deployment"]
        selection = {"includedResourceTypes": kinds, "snapshotVolumes": False}
        status = await stage.back_up(namespace, selection=selection, dryRun=True)
        assert status.phase is Phase.FAILED
        assert status.error is not None
        denied = {(each.code, each.target) for each in status.error.details}
        expected = {("UserErrorExtensionMissingPermissionsOnCluster", each) for each in ("secrets", "deployments.apps")}
        assert expected <= denied
        assert "configmaps" not in {target for _, target in denied}
    finally:
        await stage.extension.stop()
