"""Pods, Jobs and CronJobs: what belongs to one run on one node is dropped (checklist rows 12, 14, 15). Pure."""

from typing import Any

from strongroom.dataplane.restore.rules.accounts import is_automatic_token
from strongroom.dataplane.restore.rules.draft import Draft, Rule

JOB_UID_LABELS = ("controller-uid", "batch.kubernetes.io/controller-uid")
MIRROR_ANNOTATION = "kubernetes.io/config.mirror"


def prepare_pod(draft: Draft, rule: Rule) -> None:
    """Let the target schedule the Pod anew, with tokens of its own."""
    spec = draft.spec()
    # `priority` and `preemptionPolicy` are resolved from priorityClassName by admission, which refuses other values.
    # The server refuses ephemeral containers in a create.
    for name in ("nodeName", "priority", "preemptionPolicy", "ephemeralContainers"):
        spec.pop(name, None)
    account = spec.get("serviceAccountName") or "default"
    # Tokens of before Kubernetes 1.24 are mounted from Secrets that are not restored. `kube-api-access-*` are projected
    # volumes: they stay, and admission adds no second one beside a mount at the token's path.
    dropped = {
        volume["name"]
        for volume in spec.get("volumes") or ()
        if "secret" in volume and is_automatic_token(account, volume.get("name", ""))
    }
    if dropped:
        spec["volumes"] = [volume for volume in spec["volumes"] if volume["name"] not in dropped]
        for part in ("containers", "initContainers"):
            for container in spec.get(part) or ():
                _drop_mounts(container, dropped)


def _drop_mounts(container: dict[str, Any], dropped: set[str]) -> None:
    mounts = container.get("volumeMounts")
    if mounts:
        container["volumeMounts"] = [mount for mount in mounts if mount.get("name") not in dropped]


def pod_skip_reason(draft: Draft, status: dict[str, Any] | None) -> str:
    """Say why a Pod is not restored, or ""."""
    annotations = draft.meta("annotations") or {}
    if MIRROR_ANNOTATION in annotations:
        return "mirror Pod: its kubelet makes it from a file on the node"
    if any(owner.get("kind") == "Node" for owner in draft.meta("ownerReferences") or ()):
        return "static Pod: its kubelet makes it from a file on the node"
    phase = (status or {}).get("phase")
    if phase in ("Succeeded", "Failed"):
        return f"finished Pod (phase {phase})"
    return ""


def prepare_job(draft: Draft, rule: Rule) -> None:
    """Drop the selector and labels that name the old Job's uid, unless its author manages the selector."""
    spec = draft.spec()
    if spec.get("manualSelector"):
        return
    selector = spec.get("selector")
    if isinstance(selector, dict):
        labels = selector.get("matchLabels") or {}
        for label in JOB_UID_LABELS:
            labels.pop(label, None)
        if not labels and not selector.get("matchExpressions"):
            del spec["selector"]
    template = (spec.get("template") or {}).get("metadata") or {}
    labels = template.get("labels") or {}
    for label in JOB_UID_LABELS:
        labels.pop(label, None)
    draft.drop_labels(*JOB_UID_LABELS)


def job_finished(status: dict[str, Any] | None) -> bool:
    """Say whether the Job is Complete or Failed."""
    return any(
        condition.get("type") in ("Complete", "Failed") and condition.get("status") == "True"
        for condition in (status or {}).get("conditions") or ()
    )


def mounted_claims(kind: str, spec: dict[str, Any]) -> list[str]:
    """Return the names of the claims that a Pod, or the template in a workload's *spec*, mounts."""
    if kind == "CronJob":
        spec = (spec.get("jobTemplate") or {}).get("spec") or {}
    if kind != "Pod":
        spec = (spec.get("template") or {}).get("spec") or {}
    claims = (volume.get("persistentVolumeClaim") for volume in spec.get("volumes") or ())
    return [claim["claimName"] for claim in claims if claim and claim.get("claimName")]


def prepare_cronjob(draft: Draft, rule: Rule) -> None:
    """Suspend the CronJob where asked.

    Runs that were missed do not fire in any case: without status.lastScheduleTime the controller counts from the new
    object's creation.
    """
    if rule.request.suspend_cronjobs:
        draft.spec()["suspend"] = True
