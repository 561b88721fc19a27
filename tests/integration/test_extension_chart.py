"""The Helm chart renders what the code installs, an API server takes it, and it goes again without residue."""

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from strongroom.controlplane.clusters import manifests, packaging
from strongroom.controlplane.clusters.manifests import EXTENSION, NAMESPACE
from strongroom.controlplane.clusters.workload import Workload
from strongroom.testbed.binaries import HELM, locate_test_program
from strongroom.testbed.cluster import Testbed

DEPLOY = Path(__file__).parents[2] / "deploy"
CHART = DEPLOY / packaging.CHART
RELEASE = "strongroom-extension"
# What comes and goes by itself; an APIService is the API server's own entry of each group.
RESTLESS = {"Event", "Lease", "EndpointSlice", "APIService"}

EGRESS = [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"protocol": "TCP", "port": 9000}]}]
CHOSEN: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "nothing": ({}, packaging.documents(Workload())),
    "less": (
        {"storageLocations": [], "networkPolicy": {"enabled": False}},
        packaging.documents(Workload(), locations=(), network_policy=False),
    ),
    "everything": (
        {
            "image": "registry.example:5000/extension@sha256:" + "0" * 64,
            "imagePullPolicy": "Always",
            "imagePullSecrets": [{"name": "pull"}],
            "storageLocations": ["main", "second"],
            "restore": {"enabled": True},
            "hooks": {"namespaces": ["default", "kube-public"]},
            "serviceAccount": {"annotations": {"azure.workload.identity/client-id": 'odd "one": {{ .Values }}'}},
            "resources": {"limits": {"memory": "2Gi"}},
            "networkPolicy": {"egress": EGRESS},
            "extraEnv": [{"name": "AWS_REGION", "value": "true"}],
            "podLabels": {"azure.workload.identity/use": "true", "app.kubernetes.io/name": "not-this"},
            "podAnnotations": {"note": "# yes: 'no'"},
            "nodeSelector": {"pool": "backup"},
            "tolerations": [{"key": "backup", "operator": "Exists"}],
            "affinity": {"nodeAffinity": {}},
        },
        packaging.documents(
            Workload(
                image="registry.example:5000/extension@sha256:" + "0" * 64,
                image_pull_policy="Always",
                image_pull_secrets=[{"name": "pull"}],
                resources={"requests": {"cpu": "500m", "memory": "256Mi"}, "limits": {"cpu": "1000m", "memory": "2Gi"}},
                extra_env=[{"name": "AWS_REGION", "value": "true"}],
                node_selector={"kubernetes.io/os": "linux", "pool": "backup"},
                tolerations=[{"key": "backup", "operator": "Exists"}],
                affinity={"nodeAffinity": {}},
                pod_labels={"azure.workload.identity/use": "true", "app.kubernetes.io/name": "not-this"},
                pod_annotations={"note": "# yes: 'no'"},
                egress=EGRESS,
            ),
            locations=("main", "second"),
            hook_namespaces=("default", "kube-public"),
            restore=True,
            account_annotations={"azure.workload.identity/client-id": 'odd "one": {{ .Values }}'},
        ),
    ),
}


@dataclass(frozen=True)
class Helm:
    """Helm with its files in *folder*, and one cluster if *kubeconfig* names it."""

    folder: Path
    kubeconfig: str = os.devnull

    def __call__(self, *words: str, values: dict[str, Any] | None = None) -> str:
        """Run it in our namespace and return what it printed; fails the test if it fails."""
        done = self.run(*words, values=values)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run(self, *words: str, values: dict[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
        program = locate_test_program(HELM, print)
        homes = {f"HELM_{name}_HOME": str(self.folder / name) for name in ("CACHE", "CONFIG", "DATA")}
        return subprocess.run(
            [program, "--namespace", NAMESPACE, *words, *(["--values", "-"] if values is not None else [])],
            input=json.dumps(values) if values is not None else None,
            env={**os.environ, **homes, "KUBECONFIG": self.kubeconfig},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def helm(tmp_path: Path) -> Helm:
    """Helm without a cluster."""
    return Helm(tmp_path)


def by_name(documents: list[dict[str, Any]]) -> dict[tuple[str, str, str], dict[str, Any]]:
    found = {
        (each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"]): each for each in documents
    }
    assert len(found) == len(documents)
    return found


@pytest.mark.parametrize("chosen", CHOSEN)
def test_the_chart_renders_what_the_code_makes(helm: Helm, chosen: str) -> None:
    values, expected = CHOSEN[chosen]
    rendered = helm("template", RELEASE, str(CHART), values=values)
    assert by_name(list(yaml.safe_load_all(rendered))) == by_name(expected)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"restore": {"enable": True}}, "enable"),
        ({"restore": {"enabled": "no"}}, "enabled"),
        ({"storageLocation": ["main"]}, "storageLocation"),
        ({"storageLocations": ["*"]}, "storageLocations"),
        ({"image": ""}, "image"),
    ],
)
def test_a_value_that_means_nothing_is_refused(helm: Helm, values: dict[str, Any], said: str) -> None:
    done = helm.run("template", RELEASE, str(CHART), values=values)
    assert done.returncode != 0
    assert said in done.stderr


def test_another_namespace_is_refused_because_the_extension_works_in_one(helm: Helm) -> None:
    done = helm.run("template", RELEASE, str(CHART), "--namespace", "elsewhere")
    assert done.returncode != 0
    assert f"install with -n {NAMESPACE}" in done.stderr


def everything(cluster: Testbed) -> set[tuple[str, str, str]]:
    """Return kind, namespace and name of all objects that there are."""
    kinds = cluster.kubectl("api-resources", "--verbs=list", "-o", "name").split()
    columns = "custom-columns=KIND:.kind,NAMESPACE:.metadata.namespace,NAME:.metadata.name"
    lines = cluster.kubectl("get", ",".join(kinds), "-A", "--no-headers", "-o", columns).splitlines()
    found = {(kind, place, name) for kind, place, name in map(str.split, lines)}
    return {each for each in found if each[0] not in RESTLESS}


def test_an_api_server_takes_the_chart_and_removing_it_leaves_what_helm_leaves_and_nothing_else(
    own_testbed: Callable[..., Testbed], tmp_path: Path
) -> None:
    cluster = own_testbed()
    helm = Helm(tmp_path, str(cluster.kubeconfig))
    before = everything(cluster)

    def there(*words: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(cluster.kubectl("get", *words, "-n", NAMESPACE, "-o", "json"))
        return found

    def bound(kind: str, *words: str) -> bool:
        return bool(cluster.kubectl("get", kind, *words, "-o", "name", "--ignore-not-found"))

    # Every set of values, also the plain manifests, is what this version of Kubernetes knows, field for field.
    dry_run = ("--server-side", "--dry-run=server", "--validate=strict", "-f", "-")
    cluster.kubectl("create", "namespace", NAMESPACE)
    for values, _ in CHOSEN.values():
        rendered = helm("template", RELEASE, str(CHART), "--include-crds", values=values)
        taken = cluster.kubectl("apply", *dry_run, stdin=rendered)
        assert f"deployment.apps/{EXTENSION} serverside-applied" in taken
    cluster.kubectl("apply", *dry_run, stdin=(DEPLOY / packaging.MANIFESTS).read_text())
    cluster.kubectl("delete", "namespace", NAMESPACE)
    assert everything(cluster) == before

    # The pod security standard that a careful administrator puts on such a namespace. It refuses pods, not Deployments.
    helm("install", RELEASE, str(CHART), "--create-namespace", "--wait", "--timeout", "5m")
    cluster.kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
    assert there("deployment", EXTENSION)["status"]["readyReplicas"] == 1
    assert not bound("clusterrolebinding", manifests.RESTORE)
    assert {each["metadata"]["name"] for each in manifests.resource_definitions()} <= {
        name for _, _, name in everything(cluster)
    }

    # An upgrade changes what it says and keeps what the extension and users made meanwhile.
    backup = {
        "apiVersion": "backup.strongroom.dev/v1alpha1",
        "kind": "Backup",
        "metadata": {"name": "kept", "namespace": NAMESPACE},
        "spec": {
            "storageLocation": "main",
            "selection": {"snapshotVolumes": False, "includeClusterScopeResources": False},
        },
    }
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(backup))
    upgraded = {"restore": {"enabled": True}, "hooks": {"namespaces": ["default"]}, "podLabels": {"of": "two"}}
    helm("upgrade", RELEASE, str(CHART), "--wait", "--timeout", "5m", values=upgraded)
    assert bound("clusterrolebinding", manifests.RESTORE)
    assert bound("rolebinding", manifests.HOOKS, "-n", "default")
    assert there("deployment", EXTENSION)["status"]["readyReplicas"] == 1
    pods = there("pods", "-l", f"app.kubernetes.io/name={EXTENSION},of=two")["items"]
    assert len(pods) == 1
    helm("upgrade", RELEASE, str(CHART), "--reset-values", "--wait", "--timeout", "5m")
    assert not bound("clusterrolebinding", manifests.RESTORE)
    assert not bound("rolebinding", manifests.HOOKS, "-n", "default")
    assert there("backup", "kept")["metadata"]["name"] == "kept"

    # Helm leaves the definitions, with them the resources, and the namespace: docs/how-to/install-extension.md.
    helm("uninstall", RELEASE, "--wait", "--timeout", "5m")
    left = {each for each in everything(cluster) - before if each[1] != NAMESPACE}
    definitions = {
        ("CustomResourceDefinition", "<none>", each["metadata"]["name"]) for each in manifests.resource_definitions()
    }
    assert left == {*definitions, ("Namespace", "<none>", NAMESPACE)}
    in_namespace = {(kind, name) for kind, place, name in everything(cluster) if place == NAMESPACE}
    assert in_namespace == {("Backup", "kept"), ("ServiceAccount", "default"), ("ConfigMap", "kube-root-ca.crt")}
    cluster.kubectl("delete", "namespace", NAMESPACE)
    cluster.kubectl("delete", "-f", str(DEPLOY / "crds"))
    assert everything(cluster) == before
