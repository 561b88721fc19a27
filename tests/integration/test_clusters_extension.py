"""The extension's account and a vault's trusted access in a real cluster: enough for their work, and no more."""

import asyncio
import json
import ssl
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from strongroom.controlplane.clusters import manifests
from strongroom.controlplane.clusters.access import ClusterAccess
from strongroom.controlplane.clusters.connect import connect
from strongroom.controlplane.clusters.disconnect import disconnect
from strongroom.controlplane.clusters.errors import (
    ClusterError,
    ClusterForbidden,
    ClusterOwned,
    ClusterUnauthorized,
    ClusterUnreachable,
    ExtensionNotInstalled,
)
from strongroom.controlplane.clusters.installer import (
    ExtensionSettings,
    disable_restore,
    enable_restore,
    extension_health,
    install_extension,
    remove_extension,
)
from strongroom.controlplane.clusters.kinds import CONFIG_MAPS, SECRETS
from strongroom.controlplane.clusters.manifests import NAMESPACE
from strongroom.controlplane.clusters.pool import ClusterPool, ClusterUnknown
from strongroom.controlplane.clusters.rights import Right, allowed
from strongroom.controlplane.clusters.trusted_access import (
    bind_trusted_access,
    trusted_access_bindings,
    unbind_trusted_access,
)
from strongroom.controlplane.state.database import Database, Tx
from strongroom.controlplane.state.jobs import Job
from strongroom.controlplane.state.times import stamp
from strongroom.controlplane.workflows.restore_rights import RestoreRights
from strongroom.controlplane.workflows.services import Services
from strongroom.dataplane.collector.collect import BackupRequest, collect
from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.errors import KubeForbidden, KubeUnauthorized
from strongroom.dataplane.objectstore.memory import MemoryStore
from strongroom.dataplane.repository.keyfile import KeyFile
from strongroom.dataplane.repository.model import Selection, VolumeState
from strongroom.dataplane.repository.points import RecoveryPoint
from strongroom.dataplane.repository.repository import Repository
from strongroom.dataplane.restore.execute import execute
from strongroom.dataplane.restore.gather import gather_plan
from strongroom.dataplane.restore.model import Done, RestoreRequest
from strongroom.testbed.cluster import Testbed
from strongroom.testbed.faults import FaultProxy
from strongroom.testbed.faults_rules import DropReply, Rule
from strongroom.testbed.sharing import shared_testbed

from .clusters_stage import VAULT, admin_of, as_token, got, until, until_allowed

RBAC = "rbac.authorization.k8s.io"


@pytest.fixture(scope="module")
def cluster(testbeds_folder: Path) -> Iterator[Testbed]:
    """A cluster of this file's own: connecting writes things that stand for the whole cluster."""
    with shared_testbed(testbeds_folder / "clusters-extension") as testbed:
        yield testbed


@pytest.fixture
async def access(cluster: Testbed) -> ClusterAccess:
    return (await connect(admin_of(cluster))).access()


@pytest.fixture
def place(cluster: Testbed) -> Iterator[str]:
    """A namespace with a ConfigMap, a Role and a claim that is bound."""
    name = f"app-{uuid.uuid4().hex[:6]}"
    cluster.kubectl("create", "namespace", name)
    cluster.kubectl("create", "configmap", "settings", "--from-literal=a=b", "-n", name)
    cluster.kubectl("create", "role", "reader", "--verb=get", "--resource=secrets", "-n", name)
    cluster.kubectl("create", "serviceaccount", "app", "-n", name)
    cluster.kubectl("create", "rolebinding", "reader", "--role=reader", f"--serviceaccount={name}:app", "-n", name)
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "folder-immediate",
            "resources": {"requests": {"storage": "1Mi"}},
        },
    }
    cluster.kubectl("apply", "-n", name, "-f", "-", stdin=json.dumps(claim))
    cluster.kubectl("wait", "pvc/data", "-n", name, "--for=jsonpath={.status.phase}=Bound", "--timeout=30s")
    yield name
    for one in (name, f"{name}-r"):
        cluster.kubectl("delete", "namespace", one, "--wait=false", "--ignore-not-found")


async def make_repository(folder: Path) -> Repository:
    store = MemoryStore(f"clusters-{uuid.uuid4().hex}", create=True)
    _, key = await Repository.init(store, key_file=folder / "key.json")
    return await Repository.open(store, KeyFile.load(key))


def volume_file(cluster: Testbed, place: str) -> Path:
    claim = got(cluster, "pvc", "data", "-n", place)
    volume = got(cluster, "pv", claim["spec"]["volumeName"])
    return cluster.volume_path(volume["spec"]["csi"]["volumeHandle"]) / "file"


async def ready(api: KubeApi) -> None:
    """Wait until what an installation binds counts."""
    await until_allowed(
        api,
        Right("list", "*", "*"),
        Right("create", "snapshot.storage.k8s.io", "volumesnapshots"),
        Right("create", "", "configmaps", NAMESPACE),
    )


# --- the extension


async def test_the_extension_s_token_backs_up_with_snapshots_and_restores_only_once_restore_is_enabled(
    cluster: Testbed, access: ClusterAccess, place: str, tmp_path: Path
) -> None:
    volume_file(cluster, place).write_text("precious")
    await install_extension(access, ExtensionSettings(version="0.1"))
    repo = await make_repository(tmp_path)
    async with access.api(manifests.EXTENSION) as api:
        await ready(api)
        request = BackupRequest(Selection(include_namespaces=(place,)))
        result = await collect(api, repo, request)
        assert result.manifest.state == "Completed", result.warnings
        assert result.warnings == ()
        assert [volume.state for volume in result.manifest.volumes] == [VolumeState.SNAPSHOT_READY]
        assert f"{result.manifest.id} " in json.dumps(got(cluster, "configmap", "strongroom-marker", "-n", NAMESPACE))
        again = await collect(api, repo, request)
        assert again.manifest.incremental.base == result.manifest.id, "the marker is read and written with this token"

        point = await repo.point(result.manifest.id)
        refused = await restored(api, repo, point, place)
        assert "settings" not in refused
        assert not got(cluster, "namespaces", "--field-selector", f"metadata.name={place}-r")["items"]

        await enable_restore(access)
        await until_allowed(api, Right("create", "", "namespaces"), Right("escalate", RBAC, "roles"))
        done = await restored(api, repo, point, place)
        assert {done[name] for name in ("settings", "reader", "app", "data")} == {Done.CREATED}
        assert volume_file(cluster, f"{place}-r").read_text() == "precious"
        assert got(cluster, "rolebinding", "reader", "-n", f"{place}-r")["roleRef"]["name"] == "reader"

        await disable_restore(access)

        async def taken() -> bool:
            return not await allowed(api, [Right("create", "", "namespaces")])

        await until(taken)


async def test_restore_is_taken_back_with_the_end_of_the_last_restore_into_the_cluster(
    cluster: Testbed, access: ClusterAccess, tmp_path: Path
) -> None:
    def enabled() -> bool:
        names = got(cluster, "clusterrolebindings")["items"]
        return any(one["metadata"]["name"] == manifests.RESTORE for one in names)

    class Pool(ClusterPool):
        async def access(self, id: str) -> ClusterAccess:
            if not id.endswith("/aks"):
                raise ClusterUnknown(id)
            return access

    db = Database.open(f"sqlite:///{tmp_path}/state.sqlite", b"k" * 32)
    services = cast("Services", SimpleNamespace(read=db_reader(db), pool=Pool(db, tmp_path)))
    rights = RestoreRights(services)
    target = "/subscriptions/s/resourceGroups/rg/providers/Microsoft.ContainerService/managedClusters/aks"
    first, second, elsewhere = (running_restore(db, where) for where in (target.upper(), target, f"{target}2"))
    await install_extension(access, ExtensionSettings(version="0.1"))
    for _ in range(2):
        await rights.give(target)
    assert enabled()
    assert (await extension_health(access)).restore_enabled
    await rights.take_back(target, first.id)
    assert enabled(), "the second one still needs it"
    with db.write() as tx:
        tx.jobs.save(replace(first, ended=first.started, status="Completed"))
    await rights.take_back(target, second.id)
    assert not enabled(), "one into another cluster does not count"
    await rights.take_back(f"{target}2", elsewhere.id)
    db.close()


def db_reader(db: Database) -> Any:
    async def read(work: Callable[[Tx], Any]) -> Any:
        with db.read() as tx:
            return work(tx)

    return read


def running_restore(db: Database, target: str) -> Job:
    request = {"recoveryPointId": "p", "restoreTargetInfo": {"datasourceInfo": {"resourceID": target}}}
    request["restoreTargetInfo"]["restoreCriteria"] = [{}]  # type: ignore[index]
    id = str(uuid.uuid4())
    vault = "/subscriptions/s/resourceGroups/rg/providers/Microsoft.DataProtection/backupVaults/v"
    at = stamp(datetime.now(UTC))
    job = Job(id, vault, f"{vault}/backupInstances/{id}", "Restore", "InProgress", at, {}, private={"request": request})
    with db.write() as tx:
        tx.jobs.add(job)
    return job


async def restored(api: KubeApi, repo: Repository, point: RecoveryPoint, place: str) -> dict[str, Done]:
    """What became of each object of a restore into another namespace, by name; nothing where it was refused whole."""
    try:
        plan = await gather_plan(api, point, RestoreRequest(map_namespaces={place: f"{place}-r"}))
        result = await execute(api, repo, point, plan)
    except KubeForbidden:
        return {}
    return {one.name: one.action for one in result.objects if one.action is Done.CREATED}


async def test_the_extension_reads_and_keeps_its_own_secrets_and_no_other(
    cluster: Testbed, access: ClusterAccess
) -> None:
    await install_extension(access, ExtensionSettings(storage_locations=("here",)))
    for name in ("storage-here", "storage-there"):
        cluster.kubectl("create", "secret", "generic", name, "--from-literal=key=value", "-n", NAMESPACE)
    own = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": manifests.EXTENSION_KEYS_SECRET}}
    try:
        async with access.api(manifests.EXTENSION) as api:
            await ready(api)
            await api.apply(SECRETS, manifests.EXTENSION_KEYS_SECRET, NAMESPACE, own, field_manager="x")
            assert await api.get(SECRETS, manifests.EXTENSION_KEYS_SECRET, NAMESPACE)
            assert await api.get(SECRETS, "storage-here", NAMESPACE)
            for name in ("storage-there", manifests.CONNECTOR):
                with pytest.raises(KubeForbidden):
                    await api.get(SECRETS, name, NAMESPACE)
            with pytest.raises(KubeForbidden):
                await api.create(SECRETS, {**own, "metadata": {"name": "another"}}, NAMESPACE)
            with pytest.raises(KubeForbidden):
                await api.apply(
                    SECRETS, "another", NAMESPACE, {**own, "metadata": {"name": "another"}}, field_manager="x"
                )
    finally:
        cluster.kubectl("delete", "secret", "storage-here", "storage-there", "-n", NAMESPACE)


async def test_the_extension_changes_nothing_of_users_and_runs_no_command(access: ClusterAccess, place: str) -> None:
    await install_extension(access, ExtensionSettings())
    rights = [
        Right("get", "", "secrets", place),
        Right("get", "", "pods/exec", place),
        Right("create", "", "pods/exec", place),
        Right("get", "", "nodes/proxy"),
        Right("get", "", "services/proxy", place),
        Right("create", "", "configmaps", place),
        Right("patch", "", "configmaps", place),
        Right("delete", "", "configmaps", place),
        Right("create", "", "pods", NAMESPACE),
        Right("create", "", "serviceaccounts/token", NAMESPACE),
        Right("create", RBAC, "clusterrolebindings"),
        Right("patch", RBAC, "roles", NAMESPACE),
        Right("impersonate", "", "users"),
        Right("watch", "", "secrets"),
    ]
    async with access.api(manifests.EXTENSION) as api:
        await ready(api)
        assert await allowed(api, rights) == set()


async def test_hooks_run_in_the_namespaces_that_are_listed_and_an_update_takes_them_away(
    cluster: Testbed, access: ClusterAccess, place: str
) -> None:
    await install_extension(access, ExtensionSettings(hook_namespaces=(place,)))
    here, there = Right("create", "", "pods/exec", place), Right("create", "", "pods/exec", "default")
    async with access.api(manifests.EXTENSION) as api:
        await until_allowed(api, here)
        assert await allowed(api, [here, there]) == {here}
        await install_extension(access, ExtensionSettings())

        async def taken() -> bool:
            return not await allowed(api, [here])

        await until(taken)
    with pytest.raises(ClusterError):
        await install_extension(access, ExtensionSettings(hook_namespaces=("no-such-namespace",)))
    await remove_extension(access)


async def test_installing_twice_changes_nothing_and_removing_leaves_only_what_connecting_made(
    cluster: Testbed, access: ClusterAccess, place: str
) -> None:
    await remove_extension(access)
    ours = f"{manifests.MANAGED_BY}={manifests.OWNER}"

    def present() -> dict[str, str]:
        kinds = "sa,secrets,configmaps,roles,rolebindings,clusterroles,clusterrolebindings"
        found = got(cluster, kinds, "-A", "-l", f"{ours},!strongroom.dev/none")["items"]
        return {
            f"{one['kind']} {one['metadata']['name']}": one["metadata"]["resourceVersion"]
            for one in found
            if one["metadata"]["name"] != "strongroom-marker"
        }

    before = set(present())
    settings = ExtensionSettings(configuration={"a": "b"}, storage_locations=("x",), hook_namespaces=(place,))
    await install_extension(access, settings)
    await enable_restore(access)
    once = present()
    await install_extension(access, settings)
    assert present() == once
    health = await extension_health(access)
    assert health.healthy
    assert health.restore_enabled
    assert health.settings == settings
    token = (await access.token(manifests.EXTENSION)).text
    await remove_extension(access)
    await remove_extension(access)
    assert set(present()) == before
    assert not (await extension_health(access)).installed
    with pytest.raises(ClusterForbidden):
        await access.token(manifests.EXTENSION)
    async with as_token(cluster, token) as api:

        async def refused() -> bool:
            try:
                await api.get_at(CONFIG_MAPS, "settings", place)
            except (KubeForbidden, KubeUnauthorized):
                return True
            return False

        await until(refused)
    with pytest.raises(ExtensionNotInstalled):
        await enable_restore(access)


async def test_what_is_missing_of_an_installation_is_told_all_at_once_and_installing_mends_it(
    cluster: Testbed, access: ClusterAccess
) -> None:
    await install_extension(access, ExtensionSettings())
    cluster.kubectl("delete", "clusterrolebinding", manifests.READ)
    cluster.kubectl("delete", "role", manifests.EXTENSION, "-n", NAMESPACE)
    cluster.kubectl("annotate", "clusterrole", manifests.HOOKS, f"{manifests.RULES_ANNOTATION}=old", "--overwrite")
    health = await extension_health(access)
    assert health.installed
    assert [line.partition(":")[0] for line in health.missing] == [
        f"Role.{RBAC} {manifests.EXTENSION}",
        f"ClusterRoleBinding.{RBAC} {manifests.READ}",
        f"ClusterRole.{RBAC} {manifests.HOOKS} of this version",
    ]
    await install_extension(access, ExtensionSettings())
    await connect(admin_of(cluster))
    assert (await extension_health(access)).healthy


async def test_what_belongs_to_somebody_else_is_refused(cluster: Testbed, access: ClusterAccess) -> None:
    await remove_extension(access)
    cluster.kubectl("create", "clusterrolebinding", manifests.READ, "--clusterrole=view", "--user=somebody")
    try:
        with pytest.raises(ClusterOwned):
            await install_extension(access, ExtensionSettings())
        assert got(cluster, "clusterrolebinding", manifests.READ)["roleRef"]["name"] == "view"
    finally:
        cluster.kubectl("delete", "clusterrolebinding", manifests.READ)
        await remove_extension(access)


@pytest.mark.parametrize("step", [1, 3, 6, 9, 12, 15])
async def test_an_installation_that_stops_at_any_step_is_completed_by_the_next(
    cluster: Testbed, access: ClusterAccess, step: int
) -> None:
    await remove_extension(access)
    connector = (await connect(admin_of(cluster))).connector_token
    trust = ssl.create_default_context(cafile=str(cluster.ca_file))
    async with FaultProxy(cluster.server, upstream_tls=trust, serve_tls=True) as proxy:
        broken = ClusterAccess(proxy.url, proxy.certificate, connector, allow_loopback=True)
        proxy.add(Rule(DropReply(), skip=step))  # the server does what is asked, and nobody hears of it
        with pytest.raises(ClusterUnreachable):
            await install_extension(broken, ExtensionSettings())
    await install_extension(access, ExtensionSettings())
    assert (await extension_health(access)).healthy


# --- trusted access


async def test_a_vault_uses_our_custom_resources_in_our_namespace_and_nothing_else(
    cluster: Testbed, access: ClusterAccess
) -> None:
    account = await bind_trusted_access(access, "Binding_1", VAULT)
    assert await bind_trusted_access(access, "binding_1", VAULT.upper()) == account, "ARM does not tell case apart"
    group = manifests.OWN_GROUP
    mine = [
        Right(verb, group, resource, NAMESPACE)
        for verb in ("create", "get", "list", "watch", "delete")
        for resource in ("backups", "restores", "deletebackups")
    ]
    others = [
        *[Right(right.verb, group, right.resource, "default") for right in mine],
        *[Right(verb, group, "backupstoragelocations", NAMESPACE) for verb in ("get", "create", "patch", "delete")],
        *[Right(verb, group, "backups", NAMESPACE) for verb in ("patch", "update")],
        Right("patch", group, "backups/status", NAMESPACE),
        Right("get", "", "secrets", NAMESPACE),
        Right("list", "", "secrets", NAMESPACE),
        Right("create", "", "serviceaccounts/token", NAMESPACE),
        Right("list", "", "pods"),
        Right("patch", RBAC, "roles", NAMESPACE),
    ]
    async with access.api(account) as api:
        await until_allowed(api, *mine)
        assert await allowed(api, others) == set()
    await unbind_trusted_access(access, "BINDING_1")


async def test_after_unbinding_the_vault_s_tokens_are_refused_and_no_new_one_is_issued(
    cluster: Testbed, access: ClusterAccess
) -> None:
    account = await bind_trusted_access(access, "one", VAULT)
    other = await bind_trusted_access(access, "two", VAULT)
    token = (await access.token(account)).text
    assert await trusted_access_bindings(access) == {account: VAULT, other: VAULT}
    await unbind_trusted_access(access, "one")
    await unbind_trusted_access(access, "one")
    with pytest.raises(ClusterForbidden):
        await access.token(account)
    async with as_token(cluster, token) as api:
        right = Right("create", manifests.OWN_GROUP, "backups", NAMESPACE)

        async def refused() -> bool:
            try:
                assert not await allowed(api, [right])
            except KubeUnauthorized:
                return True
            return False

        await until(refused)
    assert await trusted_access_bindings(access) == {other: VAULT}
    assert (await access.token(other)).text
    await unbind_trusted_access(access, "two")
    listed = got(cluster, "role", manifests.CONNECTOR, "-n", NAMESPACE)["rules"][0]["resourceNames"]
    assert not [name for name in listed if name.startswith("vault")]


async def test_another_vault_under_the_same_binding_gets_another_account(access: ClusterAccess) -> None:
    first = await bind_trusted_access(access, "shared", VAULT)
    second = await bind_trusted_access(access, "shared", f"{VAULT}-other")
    assert first != second
    assert await trusted_access_bindings(access) == {second: f"{VAULT}-other"}
    with pytest.raises(ClusterForbidden):
        await access.token(first)
    await unbind_trusted_access(access, "shared")


async def test_bindings_made_at_once_are_all_listed(cluster: Testbed, access: ClusterAccess) -> None:
    names = [f"many-{number}" for number in range(6)]
    accounts = await asyncio.gather(*(bind_trusted_access(access, name, VAULT) for name in names))
    listed = got(cluster, "role", manifests.CONNECTOR, "-n", NAMESPACE)["rules"][0]["resourceNames"]
    assert set(accounts) <= set(listed)
    await asyncio.gather(*(unbind_trusted_access(access, name) for name in names))
    listed = got(cluster, "role", manifests.CONNECTOR, "-n", NAMESPACE)["rules"][0]["resourceNames"]
    assert not set(accounts) & set(listed)


async def test_connecting_again_keeps_extension_and_vaults(cluster: Testbed, access: ClusterAccess) -> None:
    await install_extension(access, ExtensionSettings())
    account = await bind_trusted_access(access, "kept", VAULT)
    again = (await connect(admin_of(cluster))).access()
    assert (await again.token(account)).text
    assert (await again.token(manifests.EXTENSION)).text
    assert (await extension_health(again)).healthy
    await unbind_trusted_access(access, "kept")
    await remove_extension(access)


async def test_disconnecting_ends_every_token_and_connecting_again_begins_anew(
    cluster: Testbed, access: ClusterAccess
) -> None:
    await install_extension(access, ExtensionSettings())
    account = await bind_trusted_access(access, "gone", VAULT)
    tokens = [(await access.token(name)).text for name in (account, manifests.INSTALLER, manifests.EXTENSION)]
    await disconnect(access)
    assert not got(cluster, "rolebindings", "-n", NAMESPACE, "-l", manifests.BINDING_LABEL)["items"]

    async def refused() -> bool:
        for token in tokens:
            async with as_token(cluster, token) as api:
                try:
                    await api.get_path("/version")
                except KubeUnauthorized:
                    continue
                return False
        return True

    await until(refused)  # an API server remembers a token that it accepted for 10 s
    with pytest.raises((ClusterUnauthorized, ClusterForbidden)):
        await access.token(manifests.INSTALLER)
    again = (await connect(admin_of(cluster))).access()
    assert not (await extension_health(again)).installed
    assert await trusted_access_bindings(again) == {}
