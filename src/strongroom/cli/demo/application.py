"""Deploys the sample application and fills its volumes."""

import json
import os
import random
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from strongroom.cli.demo.webhook import OrderWebhook
from strongroom.testbed.cluster import Testbed

NAMESPACES = ("shop", "warehouse")
MARK = "app.kubernetes.io/part-of=sample-shop"
CLUSTER_KINDS = (
    "customresourcedefinitions",
    "clusterroles",
    "clusterrolebindings",
    "mutatingwebhookconfigurations",
    "validatingwebhookconfigurations",
)
ORDERS = 24
CLAIMS = ("archive", "data-inventory-0", "data-inventory-1")

# Everything that is waited for happens within seconds on two busy cores; a minute says that it never will.
PATIENCE = "--timeout=60s"

# Kinds that a GitOps controller would apply server-side, and its name: field ownership must survive a restore.
APPLIED = ("Deployment", "NetworkPolicy")
APPLIER = "sample-gitops"

# More than one block of every layer between the file and the snapshot, and not a multiple of any.
LARGE_FILE_BYTES = 3 * 1024 * 1024 + 17


def deploy(testbed: Testbed, webhook: OrderWebhook) -> None:
    """Create the application; its Orders come last, so that the webhook sees each."""
    manifests = [m for m in yaml.safe_load_all(files(__package__).joinpath("application.yaml").read_text()) if m]
    create(testbed, [m for m in manifests if m["kind"] not in APPLIED])
    create(testbed, [m for m in manifests if m["kind"] in APPLIED], "--server-side", f"--field-manager={APPLIER}")
    create(testbed, webhook.configurations())
    testbed.kubectl("wait", "--for=condition=Established", "crd/orders.shop.example.com", PATIENCE)
    create(testbed, [order(number) for number in range(ORDERS)])
    # A status of its own, and a ConfigMap that belongs to an Order: what restores tend to lose.
    patch = '{"status": {"phase": "Shipped"}}'
    testbed.kubectl("patch", "order", "order-00", "-n", "shop", "--subresource=status", "--type=merge", "-p", patch)
    owner = json.loads(testbed.kubectl("get", "order", "order-00", "-n", "shop", "-o", "json"))
    create(testbed, [invoice(owner["metadata"]["uid"])])


def await_ready(testbed: Testbed) -> None:
    """Return when all pods are ready and all claims are bound."""
    testbed.kubectl("rollout", "status", "deployment/storefront", "-n", "shop", PATIENCE)
    testbed.kubectl("rollout", "status", "statefulset/inventory", "-n", "warehouse", PATIENCE)
    claims = [f"pvc/{claim}" for claim in CLAIMS]
    testbed.kubectl("wait", *claims, "-n", "warehouse", "--for=jsonpath={.status.phase}=Bound", PATIENCE)


def destroy(testbed: Testbed) -> None:
    """Delete both namespaces and all that is cluster-wide; return when it is gone."""
    for kind in reversed(CLUSTER_KINDS):  # webhooks first: their server would be asked about every deletion
        testbed.kubectl("delete", kind, "-l", MARK)
    testbed.kubectl("delete", "namespace", *NAMESPACES)


def order(number: int, *, quantity: int | None = None) -> dict[str, Any]:
    """Return an Order; its namespace alternates."""
    return {
        "apiVersion": "shop.example.com/v1",
        "kind": "Order",
        "metadata": {"name": f"order-{number:02}", "namespace": NAMESPACES[number % 2]},
        "spec": {"item": f"item-{number % 5}", "quantity": number + 1 if quantity is None else quantity},
    }


def invoice(owner_uid: str) -> dict[str, Any]:
    """Return a ConfigMap that the Order order-00 owns."""
    owner = {"apiVersion": "shop.example.com/v1", "kind": "Order", "name": "order-00", "uid": owner_uid}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "invoice-00", "namespace": "shop", "ownerReferences": [owner]},
        "data": {"total": "42.00"},
    }


def create(testbed: Testbed, manifests: list[dict[str, Any]], *options: str) -> None:
    """Create objects as a user does, by `kubectl apply` with *options*."""
    testbed.kubectl(
        "apply", *options, "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
    )


def volume_folders(testbed: Testbed) -> dict[str, Path]:
    """Return for each bound claim of the application the folder in which its volume's bytes lie."""
    volumes = json.loads(testbed.kubectl("get", "pv", "-o", "json"))["items"]
    return {
        volume["spec"]["claimRef"]["name"]: testbed.volume_path(volume["spec"]["csi"]["volumeHandle"])
        for volume in volumes
        if volume["spec"].get("claimRef", {}).get("namespace") in NAMESPACES and volume["status"]["phase"] == "Bound"
    }


def fill_volumes(testbed: Testbed) -> None:
    """Write files of several sizes, names and modes into every volume, others into each."""
    for number, (claim, folder) in enumerate(sorted(volume_folders(testbed).items())):
        (folder / "tables" / "2026").mkdir(parents=True)
        (folder / "empty").mkdir()
        contents = {
            "name.txt": f"volume of {claim}\n".encode(),
            "tables/2026/stock.bin": random.Random(number).randbytes(LARGE_FILE_BYTES),  # noqa: S311 (test data)
            "tables/größe 世界.csv": "Artikel;Größe\nApfel;7\n".encode(),
            "none": b"",
        }
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        (folder / "name.txt").chmod(0o640)
        (folder / "latest").symlink_to("tables/2026/stock.bin")
        os.utime(folder / "name.txt", (1_700_000_000, 1_700_000_000))
