"""What kept objects need and refer to, found in their bodies."""

import json

import pytest

from strongroom.dataplane.collector.needed import Needs
from strongroom.dataplane.kube.kinds import Kind
from strongroom.dataplane.repository.objects import split

POD_SPEC = {
    "serviceAccountName": "runner",
    "imagePullSecrets": [{"name": "pull"}],
    "volumes": [
        {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
        {"name": "config", "configMap": {"name": "config"}},
        {"name": "secret", "secret": {"secretName": "secret"}},
        {"name": "csi", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "csi-secret"}}},
        {"name": "empty", "emptyDir": {}},
        {
            "name": "projected",
            "projected": {
                "sources": [
                    {"configMap": {"name": "projected-config"}},
                    {"secret": {"name": "projected-secret"}},
                    {"serviceAccountToken": {"path": "token"}},
                    {"configMap": {"name": "kube-root-ca.crt"}},
                ]
            },
        },
    ],
    "containers": [
        {
            "name": "c",
            "env": [
                {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "env-config", "key": "a"}}},
                {"name": "B", "valueFrom": {"secretKeyRef": {"name": "env-secret", "key": "b"}}},
                {"name": "C", "value": "plain"},
                {"name": "D", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            ],
        }
    ],
    "initContainers": [{"name": "i", "envFrom": [{"configMapRef": {"name": "from-config"}}]}],
    "ephemeralContainers": [{"name": "e", "envFrom": [{"secretRef": {"name": "from-secret"}}]}],
}
CONFIG_MAPS = {"config", "projected-config", "env-config", "from-config"}
SECRETS = {"pull", "secret", "csi-secret", "projected-secret", "env-secret", "from-secret"}


def observed(group: str, kind: str, name: str, document: dict[str, object], namespace: str = "shop") -> Needs:
    needs = Needs()
    show(needs, group, kind, name, document, namespace)
    return needs


def show(needs: Needs, group: str, kind: str, name: str, document: dict[str, object], namespace: str = "shop") -> None:
    served = {"metadata": {"name": name, "namespace": namespace, "uid": "u"}, **document}
    parts = split(json.dumps(served).encode(), group, "v1", kind)
    needs.observe(Kind(group, "v1", kind, kind.lower() + "s", True, frozenset()), parts)


@pytest.mark.parametrize(
    ("group", "kind", "document"),
    [
        ("", "Pod", {"spec": POD_SPEC}),
        ("apps", "Deployment", {"spec": {"template": {"spec": POD_SPEC}}}),
        ("apps", "StatefulSet", {"spec": {"template": {"spec": POD_SPEC}}}),
        ("apps", "DaemonSet", {"spec": {"template": {"spec": POD_SPEC}}}),
        ("apps", "ReplicaSet", {"spec": {"template": {"spec": POD_SPEC}}}),
        ("", "ReplicationController", {"spec": {"template": {"spec": POD_SPEC}}}),
        ("batch", "Job", {"spec": {"template": {"spec": POD_SPEC}}}),
        ("batch", "CronJob", {"spec": {"jobTemplate": {"spec": {"template": {"spec": POD_SPEC}}}}}),
    ],
)
def test_pods_and_workloads_need_claims_and_refer_to_configuration(
    group: str, kind: str, document: dict[str, object]
) -> None:
    needs = observed(group, kind, "web", document)
    assert needs.needs_claim("shop", "data")
    assert not needs.needs_claim("shop", "config")
    assert not needs.needs_claim("other", "data")
    references = needs.references()
    assert {each.name for each in references if each.kind == "ConfigMap"} == CONFIG_MAPS
    assert {each.name for each in references if each.kind == "Secret"} == SECRETS
    assert {each.name for each in references if each.kind == "ServiceAccount"} == {"runner"}
    assert {each.namespace for each in references} == {"shop"}
    assert all(each.referred_by.endswith("shop/web") for each in references)


def test_what_is_kept_is_no_reference() -> None:
    needs = observed("", "Pod", "web", {"spec": POD_SPEC})
    needs.kept.update({("ConfigMap", "shop/config"), ("Secret", "other/secret")})
    names = {each.name for each in needs.references()}
    assert "config" not in names
    assert "secret" in names


def test_claims_made_from_a_stateful_sets_templates_are_needed_by_it() -> None:
    templates = [{"metadata": {"name": "data"}}, {"metadata": {"name": "logs"}}]
    needs = observed("apps", "StatefulSet", "db", {"spec": {"volumeClaimTemplates": templates}})
    assert needs.needs_claim("shop", "data-db-0")
    assert needs.needs_claim("shop", "logs-db-12")
    assert not needs.needs_claim("shop", "data-db-x")
    assert not needs.needs_claim("shop", "data-db")
    assert not needs.needs_claim("other", "data-db-0")


def test_a_generic_ephemeral_volume_needs_the_claim_named_after_its_pod() -> None:
    spec = {"volumes": [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}]}
    assert observed("", "Pod", "web-1", {"spec": spec}).needs_claim("shop", "web-1-scratch")


def test_a_claim_needs_its_volume_and_class() -> None:
    needs = observed("", "PersistentVolumeClaim", "data", {"spec": {"volumeName": "pv-1", "storageClassName": "fast"}})
    assert (needs.volumes, needs.storage_classes) == ({"pv-1"}, {"fast"})
    pending = observed("", "PersistentVolumeClaim", "data", {"spec": {"storageClassName": ""}})
    assert (pending.volumes, pending.storage_classes) == (set(), set())


def test_other_kinds_that_refer_to_secrets_and_accounts() -> None:
    needs = Needs()
    show(needs, "networking.k8s.io", "Ingress", "web", {"spec": {"tls": [{"secretName": "tls"}, {"hosts": ["a"]}]}})
    show(
        needs, "", "ServiceAccount", "runner", {"secrets": [{"name": "token"}], "imagePullSecrets": [{"name": "pull"}]}
    )
    subjects = [
        {"kind": "ServiceAccount", "name": "robot", "namespace": "tools"},
        {"kind": "ServiceAccount", "name": "near"},
        {"kind": "User", "name": "jane"},
    ]
    show(needs, "rbac.authorization.k8s.io", "RoleBinding", "b", {"subjects": subjects})
    assert {(each.kind, each.namespace, each.name) for each in needs.references()} == {
        ("Secret", "shop", "tls"),
        ("Secret", "shop", "token"),
        ("Secret", "shop", "pull"),
        ("ServiceAccount", "tools", "robot"),
        ("ServiceAccount", "shop", "near"),
    }


@pytest.mark.parametrize("document", [{}, {"spec": None}, {"spec": {"volumes": None, "containers": []}}, {"spec": 5}])
def test_an_object_that_says_nothing_needs_nothing(document: dict[str, object]) -> None:
    needs = observed("", "Pod", "odd", document)
    assert needs.references() == ()
    assert not needs.claims
