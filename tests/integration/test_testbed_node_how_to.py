"""The how-to, step for step, with the extension as a pod on a real node (issue 5, Show 1)."""

import contextlib
import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from strongroom.controlplane.clusters.manifests import EXTENSION, NAMESPACE
from strongroom.testbed.capsule import unsupported
from strongroom.testbed.options import Level, TestbedOptions
from strongroom.testbed.python_images import EXTENSION as IMAGE
from strongroom.testbed.python_images import extension_image
from strongroom.testbed.sharing import shared_testbed
from strongroom.testbed.stores import azurite

from ..e2e.test_how_to import Stage, follow_the_how_to, make_subscription
from ..serving import running_server


@pytest.fixture
def stage(testbeds_folder: Path, tmp_path: Path) -> Iterator[Stage]:
    if reason := unsupported():
        pytest.skip(reason)
    options = TestbedOptions(level=Level.NODE, audit=True)
    with (
        shared_testbed(testbeds_folder / "how-to-node", options) as testbed,
        azurite() as store,
        contextlib.ExitStack() as lives,
    ):
        testbed.load_image(extension_image())
        address = testbed.expose(int(store.endpoint.rpartition(":")[2]))
        server = lives.enter_context(running_server(tmp_path / "server"))
        began = testbed.audit_log.stat().st_size
        other, namespace = make_subscription(server), f"shop-{uuid.uuid4().hex[:6]}"
        settings = {
            "configuration.mode": "inCluster",
            "configuration.image": IMAGE,
            "configuration.clusterEndpoint": f"http://{address}",
        }
        yield Stage(server, testbed, store, other, namespace, lives, began, settings)


def test_the_how_to_step_for_step_with_the_extension_as_a_pod(stage: Stage) -> None:
    follow_the_how_to(stage)
    lease = json.loads(stage.testbed.kubectl("get", "lease", EXTENSION, "-n", NAMESPACE, "-o", "json"))
    (pod,) = json.loads(stage.testbed.kubectl("get", "pods", "-n", NAMESPACE, "-o", "json"))["items"]
    assert lease["spec"]["holderIdentity"].startswith(f"pod:{pod['metadata']['uid']}/")
    assert pod["spec"]["serviceAccountName"] == EXTENSION
    assert not list((stage.server.home / "clusters").glob("*/token")), "this server hosts nothing"
