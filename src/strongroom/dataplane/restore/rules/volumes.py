"""PersistentVolumeClaims, PersistentVolumes and claim templates (checklist rows 23, 24). Pure."""

from typing import Any

from strongroom.dataplane.restore.rules.draft import Draft, Rule
from strongroom.dataplane.restore.rules.quantities import quantity_bytes

BINDING_ANNOTATIONS = (
    "pv.kubernetes.io/bind-completed",
    "pv.kubernetes.io/bound-by-controller",
    "volume.beta.kubernetes.io/storage-provisioner",
    "volume.kubernetes.io/storage-provisioner",
    "volume.kubernetes.io/selected-node",
)
"""Annotations by which the source's controllers remember a binding and a node."""
STORAGE_CLASS_ANNOTATION = "volume.beta.kubernetes.io/storage-class"


def prepare_claim(draft: Draft, rule: Rule) -> None:
    """Make the claim bind anew: from a snapshot, empty, or to its static volume."""
    draft.drop_annotations(*BINDING_ANNOTATIONS)
    spec = draft.spec()
    if rule.planned.keep_volume_name:
        # The volume is restored beside it and names this claim; other data sources do not matter to a bound claim.
        spec.pop("dataSource", None)
        spec.pop("dataSourceRef", None)
        return
    spec.pop("volumeName", None)
    spec.pop("dataSource", None)
    spec.pop("dataSourceRef", None)
    _map_class(spec, rule)
    annotations = draft.meta("annotations") if rule.request.map_storage_classes else None
    if annotations and STORAGE_CLASS_ANNOTATION in annotations:
        old = annotations[STORAGE_CLASS_ANNOTATION]
        annotations[STORAGE_CLASS_ANNOTATION] = rule.request.map_storage_classes.get(old, old)
    volume = rule.planned.volume
    if volume is None or not rule.import_name:
        return
    spec["dataSource"] = {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": rule.import_name}
    if volume.restore_size_bytes:
        requests = spec.setdefault("resources", {}).setdefault("requests", {})
        # A provisioner refuses a claim smaller than its snapshot; a volume may have grown beyond its claim's wish.
        if quantity_bytes(str(requests.get("storage", "0"))) < volume.restore_size_bytes:
            requests["storage"] = str(volume.restore_size_bytes)


def prepare_volume(draft: Draft, rule: Rule) -> None:
    """Give a static volume back to its claim: by name, without the old claim's uid."""
    draft.drop_annotations("pv.kubernetes.io/bound-by-controller")
    claim = draft.spec().get("claimRef")
    if claim:
        claim.pop("uid", None)
        claim.pop("resourceVersion", None)
        if claim.get("namespace"):
            claim["namespace"] = rule.namespace(claim["namespace"])


def prepare_stateful_set(draft: Draft, rule: Rule) -> None:
    """Map the storage classes of the claim templates."""
    if rule.request.map_storage_classes:
        for template in draft.spec().get("volumeClaimTemplates") or ():
            _map_class(template.get("spec") or {}, rule)


def _map_class(spec: dict[str, Any], rule: Rule) -> None:
    name = spec.get("storageClassName")
    if name:
        spec["storageClassName"] = rule.request.map_storage_classes.get(name, name)
