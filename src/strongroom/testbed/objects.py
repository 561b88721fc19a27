"""Writes down the Kubernetes objects that every test cluster starts with."""

from typing import Any

from strongroom.testbed.components import DRIVER_NAME, NODE_NAME
from strongroom.testbed.options import Level

STORAGE_CLASS_IMMEDIATE = "folder-immediate"
STORAGE_CLASS_WAIT = "folder-wait"
SNAPSHOT_CLASS = "folder"

SNAPSHOT_GROUPS = ("snapshot.storage.k8s.io", "groupsnapshot.storage.k8s.io")
CRD_PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

Object = dict[str, Any]


def cluster_objects(level: Level) -> list[tuple[str, Object]]:
    """Return the objects of a cluster, each after the path that it is posted to: the one Node, unless it is real."""
    if level is Level.NODE:
        return []  # the kubelet registers it
    labels = {"kubernetes.io/hostname": NODE_NAME, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
    # KWOK takes the capacity that it finds; enough for every pod of a benchmark.
    capacity = {"cpu": "1000", "memory": "4Ti", "pods": "100000", "ephemeral-storage": "1Ti"}
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": NODE_NAME, "labels": labels, "annotations": {"kwok.x-k8s.io/node": "fake"}},
        "status": {"allocatable": capacity, "capacity": capacity},
    }
    return [("/api/v1/nodes", node)]


def volume_objects(level: Level) -> list[tuple[str, Object]]:
    """Return the objects of the CSI side, each after its path; the snapshot CRDs must be there."""
    storage = "/apis/storage.k8s.io/v1"
    driver = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "CSIDriver",
        "metadata": {"name": DRIVER_NAME},
        "spec": {"attachRequired": False, "podInfoOnMount": False, "volumeLifecycleModes": ["Persistent"]},
    }
    # A real kubelet writes this when a driver registers; the scheduler counts volumes by it.
    csi_node = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "CSINode",
        "metadata": {"name": NODE_NAME},
        "spec": {"drivers": [{"name": DRIVER_NAME, "nodeID": NODE_NAME, "topologyKeys": []}]},
    }
    snapshot_class = {
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshotClass",
        "metadata": {
            "name": SNAPSHOT_CLASS,
            "annotations": {"snapshot.storage.kubernetes.io/is-default-class": "true"},
        },
        "driver": DRIVER_NAME,
        "deletionPolicy": "Delete",
    }
    return [
        (f"{storage}/csidrivers", driver),
        *([(f"{storage}/csinodes", csi_node)] if level is not Level.NODE else []),
        (f"{storage}/storageclasses", _storage_class(STORAGE_CLASS_IMMEDIATE, "Immediate", default=True)),
        (f"{storage}/storageclasses", _storage_class(STORAGE_CLASS_WAIT, "WaitForFirstConsumer", default=False)),
        ("/apis/snapshot.storage.k8s.io/v1/volumesnapshotclasses", snapshot_class),
    ]


def _storage_class(name: str, binding: str, *, default: bool) -> Object:
    annotations = {"storageclass.kubernetes.io/is-default-class": "true"} if default else {}
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name, "annotations": annotations},
        "provisioner": DRIVER_NAME,
        "volumeBindingMode": binding,
        "reclaimPolicy": "Delete",
    }


AUDIT_POLICY: Object = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}
