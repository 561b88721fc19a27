"""Chart and plain manifests are made from the objects that the code knows, and what is written by hand agrees."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import yaml

from strongroom import __version__
from strongroom.controlplane.clusters import manifests
from strongroom.controlplane.clusters.packaging import CHART, LOCATIONS, MANIFESTS, files
from strongroom.controlplane.clusters.workload import Workload, deployment

DEPLOY = Path(__file__).parents[2] / "deploy"


def read(name: str) -> Any:
    return yaml.safe_load((DEPLOY / CHART / name).read_text())


def test_the_files_are_those_that_the_code_makes() -> None:
    made = files()
    folders = {Path(name).parent for name in made}
    there = {path.relative_to(DEPLOY) for folder in folders for path in (DEPLOY / folder).glob("*.yaml")}
    assert {str(name): (DEPLOY / name).read_text() for name in sorted(there)} == dict(sorted(made.items())), (
        "make them anew: python -m strongroom.controlplane.clusters.packaging deploy"
    )


def test_the_values_of_the_chart_are_what_the_code_takes_if_nothing_is_said() -> None:
    def camel(name: str) -> str:
        first, *rest = name.split("_")
        return first + "".join(map(str.capitalize, rest))

    fields = {camel(name): value for name, value in dataclasses.asdict(Workload()).items()}
    values = read("values.yaml")
    assert values.pop("networkPolicy") == {"enabled": True, "egress": fields.pop("egress")}
    assert values.pop("restore") == {"enabled": False}
    assert values.pop("hooks") == {"namespaces": []}
    assert values.pop("serviceAccount") == {"annotations": {}}
    assert values.pop("storageLocations") == list(LOCATIONS)
    assert values == json.loads(json.dumps(fields))
    schema = json.loads((DEPLOY / CHART / "values.schema.json").read_text())
    assert set(schema["properties"]) == {*read("values.yaml"), "global"}


def test_the_chart_is_of_this_version() -> None:
    chart = read("Chart.yaml")
    assert chart["version"] == chart["appVersion"] == __version__


def test_the_plain_manifests_hold_the_namespace_the_four_roles_and_no_right_to_restore() -> None:
    plain = list(yaml.safe_load_all((DEPLOY / MANIFESTS).read_text()))
    names = [(each["kind"], each["metadata"]["name"]) for each in plain]
    assert len(set(names)) == len(names)
    assert names[0] == ("Namespace", manifests.NAMESPACE)
    assert {name for kind, name in names if kind == "ClusterRole"} == set(manifests.FOUR_ROLES)
    assert {name for kind, name in names if kind == "ClusterRoleBinding"} == {manifests.READ, manifests.SNAPSHOTS}
    assert {"Deployment", "Service", "NetworkPolicy", "ServiceAccount", "Role", "RoleBinding"} <= {k for k, _ in names}


def test_what_a_user_says_of_the_pod_cannot_take_its_labels_or_its_name_in_the_lease() -> None:
    label, own = "app.kubernetes.io/name", manifests.EXTENSION
    chosen = Workload(pod_labels={label: "other", "team": "a"}, extra_env=[{"name": "AWS_REGION", "value": "x"}])
    template = deployment(chosen)["spec"]["template"]
    assert template["metadata"]["labels"][label] == own
    assert template["metadata"]["labels"]["team"] == "a"
    (container,) = template["spec"]["containers"]
    assert [each["name"] for each in container["env"]] == ["POD_UID", "AWS_REGION"]
