"""What users may say of the extension in configuration settings: everything else is refused by the setting's name."""

import pytest

from strongroom.controlplane.clusters.installer import Mode
from strongroom.controlplane.clusters.workload import Workload
from strongroom.controlplane.state.resources import Resource
from strongroom.controlplane.workflows.extension_settings import cluster_endpoint_of, mode_of, workload_of
from strongroom.protection.errors import Refused

IMAGE = "registry.example:5000/team/extension@sha256:" + "0" * 64
POD = {"configuration.mode": "inCluster", "configuration.image": IMAGE}


def extension(**settings: str) -> Resource:
    return Resource("/e", "extensions", {"properties": {"configurationSettings": settings}}, "/c", {}, "", "")


def test_without_settings_the_server_hosts_it() -> None:
    assert mode_of(extension()) is Mode.HOSTED
    assert workload_of(extension(**{"resources.limits.cpu": "nonsense"})) is None
    assert cluster_endpoint_of(extension()) == ""


def test_a_pod_is_what_the_settings_say_whatever_the_case_of_their_names() -> None:
    settings = {**POD, "Resources.Limits.CPU": "2", "resources.requests.memory": "1.5Gi"}
    found = workload_of(extension(**settings))
    assert found is not None
    assert found.image == IMAGE
    assert found.resources == {
        "requests": {"cpu": "500m", "memory": "1.5Gi"},
        "limits": {"cpu": "2", "memory": "1280Mi"},
    }
    assert Workload().resources["limits"]["cpu"] == "1000m", "what is unsaid stays as it is for others"
    settings = {**POD, "configuration.clusterEndpoint": " http://10.0.0.1:10000 "}
    assert cluster_endpoint_of(extension(**settings)) == "http://10.0.0.1:10000"


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"configuration.mode": "sideways"}, "configuration.mode"),
        ({"configuration.mode": "inCluster"}, "configuration.image"),
        ({**POD, "configuration.image": "a b"}, "configuration.image"),
        ({**POD, "configuration.image": "-x"}, "configuration.image"),
        ({**POD, "resources.limits.memory": "much"}, "resources.limits.memory"),
        ({**POD, "resources.limits.memory": "-1Gi"}, "resources.limits.memory"),
        ({**POD, "configuration.clusterEndpoint": "10.0.0.1:10000"}, "configuration.clusterEndpoint"),
        ({**POD, "configuration.clusterEndpoint": "ftp://store"}, "configuration.clusterEndpoint"),
        ({**POD, "configuration.clusterEndpoint": "http://user:password@store"}, "configuration.clusterEndpoint"),
        ({**POD, "configuration.clusterEndpoint": "http://[::1"}, "configuration.clusterEndpoint"),
        ({"configuration.clusterEndpoint": "http://10.0.0.1"}, "configuration.clusterEndpoint"),
    ],
)
def test_what_means_nothing_is_refused(settings: dict[str, str], named: str) -> None:
    def read() -> None:
        workload_of(extension(**settings))
        cluster_endpoint_of(extension(**settings))

    with pytest.raises(Refused) as caught:
        read()
    error = caught.value.error
    assert error.target == f"properties.configurationSettings.{named}"
    assert error.recommended_action
