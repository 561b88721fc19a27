"""Connecting a real cluster: what the accounts that it leaves may do, and what nobody may."""

import asyncio
import json
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from strongroom.controlplane.clusters import manifests
from strongroom.controlplane.clusters.access import ClusterAccess, TokenFile
from strongroom.controlplane.clusters.connect import ConnectedCluster, check_connector, connect
from strongroom.controlplane.clusters.errors import (
    ClusterError,
    ClusterForbidden,
    ClusterOwned,
    ClusterUnauthorized,
    ClusterUnreachable,
    ConnectorUnfit,
    KubeconfigRefused,
)
from strongroom.controlplane.clusters.kinds import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    ROLE_BINDINGS,
    ROLES,
    SECRETS,
    SERVICE_ACCOUNTS,
)
from strongroom.controlplane.clusters.kubeconfig import AdminConnection, parse_kubeconfig
from strongroom.controlplane.clusters.manifests import NAMESPACE
from strongroom.controlplane.clusters.rights import Right, allowed
from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.errors import KubeForbidden, KubeNotFound, KubeUnauthorized
from strongroom.testbed.cluster import Testbed
from strongroom.testbed.faults import FaultProxy
from strongroom.testbed.faults_rules import DropRequest, Rule
from strongroom.testbed.sharing import shared_testbed

from .clusters_stage import admin_of, as_token, clean, got, until

RBAC = "rbac.authorization.k8s.io"
NOBODY = "strongroom-nobody"


@pytest.fixture(scope="module")
def cluster(testbeds_folder: Path) -> Iterator[Testbed]:
    """A cluster of this file's own: connecting writes things that stand for the whole cluster."""
    with shared_testbed(testbeds_folder / "clusters-accounts") as testbed:
        yield testbed


@pytest.fixture
async def connected(cluster: Testbed) -> ConnectedCluster:
    return await connect(admin_of(cluster))


@pytest.fixture
def access(connected: ConnectedCluster) -> ClusterAccess:
    return connected.access()


# --- connecting


async def test_connecting_twice_changes_nothing_and_keeps_the_connector_s_token(cluster: Testbed) -> None:
    clean(cluster)

    def versions() -> dict[str, str]:
        found = got(cluster, "sa,secrets,roles,rolebindings", "-n", NAMESPACE)["items"]
        found += got(cluster, "clusterroles,clusterrolebindings", "-l", f"{manifests.MANAGED_BY}=strongroom")["items"]
        return {f"{one['kind']} {one['metadata']['name']}": one["metadata"]["resourceVersion"] for one in found}

    first = await connect(admin_of(cluster))
    before = versions()
    assert await connect(admin_of(cluster)) == first
    assert versions() == before
    assert {f"ClusterRole {name}" for name in manifests.FOUR_ROLES} <= set(before)
    assert first.warnings == ()
    assert first.version == cluster.version
    assert first.uid == got(cluster, "namespace", "kube-system")["metadata"]["uid"]
    assert first.connector_token not in repr(first)


async def test_connecting_completes_what_was_left_half_way_or_changed(cluster: Testbed) -> None:
    before = await connect(admin_of(cluster))
    cluster.kubectl("delete", "role", manifests.CONNECTOR, "-n", NAMESPACE)
    cluster.kubectl("delete", "clusterrole", manifests.SNAPSHOTS)
    wider = json.dumps([{"op": "add", "path": "/rules/0/verbs/-", "value": "get"}])
    cluster.kubectl("patch", "clusterrole", manifests.READ, "--type=json", "-p", wider)
    after = await connect(admin_of(cluster))
    assert after.connector_token == before.connector_token
    assert [rule["verbs"] for rule in got(cluster, "clusterrole", manifests.READ)["rules"]] == [["list"]]
    assert got(cluster, "clusterrole", manifests.SNAPSHOTS)["rules"]


async def test_a_credential_that_may_not_connect_is_told_all_that_it_lacks_and_nothing_is_written(
    cluster: Testbed,
) -> None:
    clean(cluster)
    with pytest.raises(ClusterForbidden) as caught:
        await connect(admin_of(cluster, cluster.make_client_cert("somebody")))
    assert "create namespaces" in caught.value.missing
    assert f"escalate clusterroles.{RBAC}" in caught.value.missing
    assert f"create secrets in namespace {NAMESPACE}" in caught.value.missing
    assert not got(cluster, "namespaces", "--field-selector", f"metadata.name={NAMESPACE}")["items"]


async def test_a_credential_that_is_unknown_or_a_server_that_is_away_has_its_own_error(cluster: Testbed) -> None:
    ca = cluster.ca_file.read_bytes()
    with pytest.raises(ClusterUnauthorized):
        await connect(AdminConnection(cluster.server, ca, token="unknown", allow_loopback=True))
    with pytest.raises(ClusterUnreachable):
        await connect(AdminConnection("https://127.0.0.1:1", ca, token="x", allow_loopback=True))
    with FaultProxy(cluster.server, serve_tls=True) as proxy, pytest.raises(ClusterUnreachable):
        await connect(AdminConnection(proxy.url, ca, token="x", allow_loopback=True))  # not the authority's server


async def test_an_address_that_was_a_name_when_it_was_parsed_is_refused_when_it_is_connected_to(
    cluster: Testbed,
) -> None:
    ca = cluster.ca_file.read_bytes()
    with pytest.raises(KubeconfigRefused, match="loopback"):
        await connect(AdminConnection(cluster.server.replace("127.0.0.1", "localhost"), ca, token="x"))


async def test_the_administrator_s_credential_is_nowhere_in_what_is_kept(cluster: Testbed) -> None:
    admin = admin_of(cluster)
    kept = await connect(admin)
    assert admin.client_key
    assert not any(
        getattr(kept, name) in (admin.client_key, admin.client_certificate, admin.token)
        for name in kept.__dataclass_fields__
    )
    # The key was in memory alone, in a file without a name: no descriptor of it is left open.
    open_files = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert not [path for path in open_files if "client-certificate" in str(path)]


@pytest.mark.parametrize(
    "document",
    [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"backuphooks.{manifests.HOOK_GROUP}"},
            "spec": {
                "group": manifests.HOOK_GROUP,
                "scope": "Namespaced",
                "names": {"plural": "backuphooks", "kind": "BackupHook"},
                "versions": [
                    {
                        "name": "v1alpha1",
                        "served": True,
                        "storage": True,
                        "schema": {"openAPIV3Schema": {"type": "object"}},
                    }
                ],
            },
        },
        {
            "apiVersion": f"{RBAC}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": manifests.READ},
            "rules": [],
        },
    ],
    ids=lambda document: document["kind"],
)
async def test_what_belongs_to_azure_s_extension_or_somebody_else_is_refused_and_left_as_it_is(
    cluster: Testbed, document: dict[str, Any]
) -> None:
    clean(cluster)
    kind, name = document["kind"], document["metadata"]["name"]
    cluster.kubectl("create", "-f", "-", stdin=json.dumps(document))
    try:
        before = got(cluster, kind, name)
        with pytest.raises(ClusterOwned) as caught:
            await connect(admin_of(cluster))
        assert caught.value.owned.endswith(name)
        after = got(cluster, kind, name)
        assert {**after, "status": None} == {**before, "status": None}
    finally:
        cluster.kubectl("delete", kind, name)
        clean(cluster)


# --- the connector


async def test_the_connector_gets_tokens_of_listed_accounts_and_nothing_else(
    cluster: Testbed, connected: ConnectedCluster, access: ClusterAccess
) -> None:
    cluster.kubectl("create", "serviceaccount", NOBODY, "-n", NAMESPACE)
    try:
        assert (await access.token(manifests.INSTALLER)).text
        for account in (NOBODY, manifests.CONNECTOR):
            with pytest.raises(ClusterForbidden):
                await access.token(account)
    finally:
        cluster.kubectl("delete", "serviceaccount", NOBODY, "-n", NAMESPACE)
    async with as_token(cluster, connected.connector_token) as api:
        for kind, place in ((SECRETS, NAMESPACE), (SERVICE_ACCOUNTS, NAMESPACE), (ROLES, NAMESPACE)):
            with pytest.raises(KubeForbidden):
                await api.get(kind, manifests.CONNECTOR, place)
            with pytest.raises(KubeForbidden):
                await api.get_at(kind, manifests.CONNECTOR, place)
        wider = manifests.connector_role([NOBODY, "default"])
        with pytest.raises(KubeForbidden):
            await api.apply(ROLES, manifests.CONNECTOR, NAMESPACE, wider, field_manager="x", force=True)
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        for account, place in (("default", "kube-system"), ("generic-garbage-collector", "kube-system")):
            with pytest.raises(KubeForbidden):
                await api.create(SERVICE_ACCOUNTS, body, place, name=account, subresource="token")


async def test_a_connector_that_may_do_more_is_not_accepted(cluster: Testbed, connected: ConnectedCluster) -> None:
    group = f"--group=system:serviceaccounts:{NAMESPACE}"
    cluster.kubectl("create", "clusterrolebinding", "careless", "--clusterrole=cluster-admin", group)
    try:

        async def noticed() -> bool:
            try:
                await check_connector(connected)
            except ConnectorUnfit as error:
                return "list secrets" in error.message
            return False

        await until(noticed)
    finally:
        cluster.kubectl("delete", "clusterrolebinding", "careless")


async def test_what_every_account_of_the_cluster_may_do_besides_is_a_warning(
    cluster: Testbed, connected: ConnectedCluster
) -> None:
    cluster.kubectl("create", "clusterrole", "node-reader", "--verb=list", "--resource=nodes")
    group = "--group=system:serviceaccounts"
    cluster.kubectl("create", "clusterrolebinding", "node-reader", "--clusterrole=node-reader", group)
    try:

        async def noticed() -> bool:
            return await check_connector(connected) == ("every ServiceAccount may list nodes",)

        await until(noticed)
    finally:
        cluster.kubectl("delete", "clusterrolebinding,clusterrole", "node-reader")


async def test_a_revoked_connector_opens_nothing_and_connecting_again_makes_a_new_one(
    cluster: Testbed, connected: ConnectedCluster
) -> None:
    cluster.kubectl("delete", "secret", manifests.CONNECTOR, "-n", NAMESPACE)

    async def refused() -> bool:
        try:
            await connected.access().token(manifests.INSTALLER)
        except ClusterUnauthorized:
            return True
        return False

    await until(refused)  # an API server remembers a token that it accepted for 10 s
    again = await connect(admin_of(cluster))
    assert again.connector_token != connected.connector_token
    assert (await again.access().token(manifests.INSTALLER)).text


# --- the installer


async def test_the_installer_binds_exactly_the_four_roles_and_writes_no_role_of_the_cluster(
    cluster: Testbed, access: ClusterAccess
) -> None:
    async with access.api(manifests.INSTALLER) as api:
        for name in ("cluster-admin", "admin", "edit", "view", "system:node"):
            binding = manifests.cluster_role_binding(name, manifests.INSTALLER)
            binding["metadata"]["name"] = "escalation"
            with pytest.raises(KubeForbidden):
                await api.create(CLUSTER_ROLE_BINDINGS, binding)
            for place in (NAMESPACE, "default"):
                here = manifests.role_binding("escalation", place, ("ClusterRole", name), manifests.INSTALLER)
                with pytest.raises(KubeForbidden):
                    await api.create(ROLE_BINDINGS, here, place)
        for name in manifests.FOUR_ROLES:
            binding = manifests.cluster_role_binding(name, NOBODY)
            await api.create(CLUSTER_ROLE_BINDINGS, binding, dry_run=True)
        role = manifests.cluster_roles()[0]
        with pytest.raises(KubeForbidden):
            await api.apply(CLUSTER_ROLES, manifests.READ, None, role, field_manager="x", force=True)
        with pytest.raises(KubeForbidden):
            await api.patch(CLUSTER_ROLES, manifests.INSTALLER, None, {"rules": []})
        role["metadata"] = {"name": "escalation"}
        with pytest.raises(KubeForbidden):
            await api.create(CLUSTER_ROLES, role)
        with pytest.raises(KubeForbidden):
            await api.delete(CLUSTER_ROLE_BINDINGS, "cluster-admin")


@pytest.mark.parametrize(
    "rule",
    [
        manifests.rule("", ["pods"], ["create"]),
        manifests.rule("", ["serviceaccounts"], ["impersonate"]),
        manifests.rule("", ["secrets"], ["list"]),
        manifests.rule(RBAC, ["roles"], ["escalate"]),
        manifests.rule(RBAC, ["roles"], ["bind"]),
        manifests.rule("*", ["*"], ["*"]),
        manifests.rule("apps", ["daemonsets"], ["create"]),
    ],
    ids=lambda rule: f"{rule['verbs'][0]} {rule['resources'][0]}",
)
async def test_the_installer_gives_nobody_more_in_our_namespace_than_it_has(
    access: ClusterAccess, rule: dict[str, Any]
) -> None:
    async with access.api(manifests.INSTALLER) as api:
        for name in (manifests.CONNECTOR, manifests.INSTALLER, "escalation"):
            role = manifests.connector_role([])
            role["metadata"]["name"] = name
            role["rules"] = [rule]
            with pytest.raises(KubeForbidden):
                await api.apply(ROLES, name, NAMESPACE, role, field_manager="x", force=True)


async def test_the_installer_s_rights_end_at_our_namespace(cluster: Testbed, access: ClusterAccess) -> None:
    outside = [
        Right(verb, group, resource, place)
        for place in ("", "default", "kube-system")
        for verb, group, resource in (
            ("get", "", "secrets"),
            ("list", "", "secrets"),
            ("create", "", "pods"),
            ("create", "", "serviceaccounts/token"),
            ("patch", RBAC, "roles"),
            ("create", RBAC, "roles"),
            ("create", "", "namespaces"),
            ("create", "apiextensions.k8s.io", "customresourcedefinitions"),
            ("impersonate", "", "users"),
        )
    ]
    outside += [Right("create", "apps", "deployments", place) for place in ("", "default", "kube-system")]
    outside += [Right(verb, "", "pods", NAMESPACE) for verb in ("create", "get", "delete")]
    outside += [Right("get", "", "pods/exec", NAMESPACE), Right("list", "", "secrets", NAMESPACE)]
    async with access.api(manifests.INSTALLER) as api:
        assert await allowed(api, outside) == set()
        assert await allowed(api, [Right("create", "", "secrets", NAMESPACE)])


# --- tokens


async def test_a_token_is_kept_until_it_is_forgotten_and_lives_an_hour_at_most(access: ClusterAccess) -> None:
    token = await access.token(manifests.INSTALLER)
    assert await access.token(manifests.INSTALLER) is token
    assert token.text not in repr(token)
    access.forget(manifests.INSTALLER)
    assert (await access.token(manifests.INSTALLER)).text != token.text
    for seconds in (599, 3601):
        with pytest.raises(ValueError, match="seconds"):
            await access.token(manifests.INSTALLER, seconds=seconds)


async def test_many_who_need_a_token_at_once_make_one_request(cluster: Testbed, connected: ConnectedCluster) -> None:
    trust = ssl.create_default_context(cafile=str(cluster.ca_file))
    async with FaultProxy(cluster.server, upstream_tls=trust, serve_tls=True) as proxy:
        access = ClusterAccess(proxy.url, proxy.certificate, connected.connector_token, allow_loopback=True)
        tokens = await asyncio.gather(*(access.token(manifests.INSTALLER) for _ in range(20)))
        assert len({token.text for token in tokens}) == 1
        assert len([one for one in proxy.requests if one.path.endswith("/token")]) == 1


async def test_after_an_outage_and_lost_tokens_all_works_again_by_itself(
    cluster: Testbed, connected: ConnectedCluster, tmp_path: Path
) -> None:
    trust = ssl.create_default_context(cafile=str(cluster.ca_file))
    path = tmp_path / "token"
    async with FaultProxy(cluster.server, upstream_tls=trust, serve_tls=True) as proxy:
        access = ClusterAccess(proxy.url, proxy.certificate, connected.connector_token, allow_loopback=True)
        async with TokenFile(access, manifests.INSTALLER, path, check_s=0.05) as file:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            first = path.read_text()
            proxy.add(Rule(DropRequest()))
            access.forget(manifests.INSTALLER)  # as when its time is over

            async def noticed() -> bool:
                return isinstance(file.failure, ClusterUnreachable)

            await until(noticed)
            assert path.read_text() == first, "what is there is not taken away for want of something better"
            proxy.clear()

            async def renewed() -> bool:
                return path.read_text() != first and file.failure is None

            await until(renewed)
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            async with as_token(cluster, path.read_text()) as api:
                assert await api.get(ROLES, manifests.CONNECTOR, NAMESPACE)
        assert list(tmp_path.iterdir()) == []


async def test_a_token_that_cannot_be_renewed_serves_on_until_its_end(
    cluster: Testbed, connected: ConnectedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strongroom.controlplane.clusters.access.RENEW_BEFORE_SECONDS", 3600)
    monkeypatch.setattr("strongroom.controlplane.clusters.access.RENEW_SHARE", 1.0)  # to be renewed at once
    trust = ssl.create_default_context(cafile=str(cluster.ca_file))
    async with FaultProxy(cluster.server, upstream_tls=trust, serve_tls=True) as proxy:
        access = ClusterAccess(proxy.url, proxy.certificate, connected.connector_token, allow_loopback=True)
        first = await access.token(manifests.INSTALLER)
        outage = Rule(DropRequest())
        proxy.add(outage)
        assert await access.token(manifests.INSTALLER) is first
        proxy.remove(outage)
        second = await access.token(manifests.INSTALLER)
        assert second is not first
        proxy.add(outage)
        monkeypatch.setattr("strongroom.controlplane.clusters.access.USABLE_SECONDS", 3601.0)  # its end has come
        with pytest.raises(ClusterUnreachable):
            await access.token(manifests.INSTALLER)


async def test_a_token_that_the_server_refuses_is_replaced_in_the_middle_of_a_request(
    cluster: Testbed, access: ClusterAccess
) -> None:
    async with access.api(manifests.INSTALLER) as api:
        assert await api.get(ROLES, manifests.CONNECTOR, NAMESPACE)
        # The account is made anew: its old tokens are another account's, for all their time.
        cluster.kubectl("delete", "serviceaccount", manifests.INSTALLER, "-n", NAMESPACE)

        async def works() -> bool:
            try:
                return bool(await api.get(ROLES, manifests.CONNECTOR, NAMESPACE))
            except (KubeUnauthorized, KubeForbidden, ClusterError):
                return False

        async def refused() -> bool:
            return not await works()

        await until(refused)
        await connect(admin_of(cluster))
        await until(works)


async def test_access_does_not_leave_the_server_s_address_rule(cluster: Testbed, connected: ConnectedCluster) -> None:
    access = ClusterAccess(cluster.server, cluster.ca_file.read_bytes(), connected.connector_token)
    with pytest.raises(KubeconfigRefused, match="loopback"):
        await access.token(manifests.INSTALLER)


async def test_the_testbed_s_kubeconfig_needs_loopback_to_be_open(cluster: Testbed) -> None:
    with pytest.raises(KubeconfigRefused, match="loopback"):
        parse_kubeconfig(cluster.kubeconfig.read_bytes(), allow_loopback=False)
    async with KubeApi(admin_of(cluster).kube_access()) as api:
        with pytest.raises(KubeNotFound):
            await api.get(ROLES, "nothing", "default")
