"""Plans a restore: which objects, in which order, and what to do where one already exists.

Pure: takes the recovery point's objects and what the target has, returns a `RestorePlan`. `gather.py` reads both sides
and feeds the planner kind by kind, so that no more than one batch of bodies is in memory; `execute.py` carries the plan
out.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from strongroom.dataplane.kube.kinds import Kind
from strongroom.dataplane.repository.model import KindEntry, Manifest, ObjectRow
from strongroom.dataplane.restore.candidates import (
    Candidate,
    Existing,
    OwnerKey,
    SourceObject,
    StorageClassFacts,
    TargetState,
)
from strongroom.dataplane.restore.claims import (
    PROVISIONED_BY,
    ClaimFacts,
    VolumeFacts,
    decide_volumes,
)
from strongroom.dataplane.restore.model import (
    Action,
    Conflict,
    OnExists,
    PlannedObject,
    RestorePlan,
    RestoreRequest,
    Wave,
)
from strongroom.dataplane.restore.owners import link_owners, skip_controlled, unresolved
from strongroom.dataplane.restore.rules.accounts import secret_skip_reason
from strongroom.dataplane.restore.rules.cluster import (
    api_service_skip_reason,
    api_service_target,
    conversion_service,
    webhook_services,
)
from strongroom.dataplane.restore.rules.draft import Draft, Rule
from strongroom.dataplane.restore.rules.metadata import lasting_finalizers, owner_references
from strongroom.dataplane.restore.rules.ownership import has_applier
from strongroom.dataplane.restore.rules.pods import job_finished, mounted_claims, pod_skip_reason
from strongroom.dataplane.restore.rules.services import endpoints_skip_reason, slice_skip_reason
from strongroom.dataplane.restore.rules.table import never_restored, transform
from strongroom.dataplane.restore.three_way import compare, hide_values
from strongroom.dataplane.restore.waves import Stage, stage_of

MOVED_GROUPS = {
    ("extensions", "Ingress"): "networking.k8s.io",
    ("extensions", "NetworkPolicy"): "networking.k8s.io",
    ("extensions", "Deployment"): "apps",
    ("extensions", "DaemonSet"): "apps",
    ("extensions", "ReplicaSet"): "apps",
}
"""Kinds that Kubernetes moved to another group (deprecation guide, v1.16 and v1.22)."""

STATUS_DECIDES = {("", "Pod"), ("batch", "Job")}
"""Kinds whose rules look at the status."""

_SERVICE_WAITERS = {
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"),
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"),
    ("apiregistration.k8s.io", "APIService"),
}
SERVICE_NEED = "ready Service "
"""Beginning of a need that the execution waits for; `namespace/name` follows."""
CRD = ("apiextensions.k8s.io", "CustomResourceDefinition")


class Planner:
    """Collects one plan. Add every selected object, resolve `unresolved_owners`, then `finish`."""

    def __init__(self, request: RestoreRequest, manifest: Manifest, target: TargetState, plan_id: str) -> None:
        self.request = request
        self.manifest = manifest
        self.target = target
        self.plan_id = plan_id
        self.warnings: list[str] = []
        self.namespaces_used: set[str] = set()
        """Source namespaces that hold objects of the plan."""
        self.follow_claims = False
        """Whether workloads are looked through for the claims that they use."""
        self.claims_used: set[tuple[str, str]] = set()
        """(source namespace, name) of claims that workloads of the plan mount."""
        self.claim_prefixes: set[tuple[str, str]] = set()
        """(source namespace, beginning of the name) of claims that StatefulSets of the plan made; a number follows."""
        self._candidates: list[Candidate] = []
        self._kinds_used: set[tuple[str, str]] = set()
        self._by_uid: dict[str, Candidate] = {}
        self._namespaces: dict[str, Candidate] = {}
        self._mapped: dict[tuple[str, str, str, str], Candidate] = {}
        self._services_with_selector: set[tuple[str, str]] = set()
        self._endpoints: list[tuple[Candidate, Draft]] = []
        self._claims: list[tuple[Candidate, ClaimFacts]] = []
        self._volumes: dict[str, tuple[Candidate, VolumeFacts]] = {}
        self._classes: dict[str, StorageClassFacts] = dict(target.storage_classes)
        self._conversions: dict[tuple[str, str], tuple[str, str]] = {}
        self._entries = {(entry.group, entry.kind): entry for entry in manifest.kinds}

    def served(self, group: str, version: str, kind: str, plural: str, namespaced: bool) -> tuple[Kind, str] | None:
        """Return the target's kind for one of the point's, and a note where group or version differ; None without one.

        A custom resource whose CRD the recovery point has is taken as served: the plan brings the CRD along.
        """
        for candidate_group in (group, MOVED_GROUPS.get((group, kind))):
            if candidate_group is None:
                continue
            kinds = self.target.served.get((candidate_group, kind))
            if not kinds:
                continue
            same = next((found for found in kinds if found.version == version and candidate_group == group), None)
            if same is not None:
                return same, ""
            found = kinds[0]
            old = f"{group}/{version}" if group else version
            return found, f"saved as {old}, which the target does not serve; sent as {found.api_version}"
        entry = self._entries.get((group, kind))
        if entry is not None and entry.crd:
            return Kind(group, version, kind, plural, namespaced, frozenset()), ""
        return None

    def candidate(self, row: ObjectRow, entry: KindEntry) -> Candidate:
        """Return the candidate for *row*: where it would go. It belongs to the plan after `add` or `add_skipped`."""
        served = self.served(row.group, row.version, row.kind, entry.plural, entry.namespaced)
        kind, note = (
            served
            if served
            else (Kind(row.group, row.version, row.kind, entry.plural, entry.namespaced, frozenset()), "")
        )
        name = row.name
        if (row.group, row.kind) == ("", "Namespace"):
            name = self.request.target_namespace(row.name)
        candidate = Candidate(
            kind.group,
            kind.version,
            kind.kind,
            kind.plural,
            kind.namespaced,
            row,
            row.namespace,
            row.name,
            self.request.target_namespace(row.namespace),
            name,
            stage_of(kind.group, kind.kind, converted=entry.conversion_webhook),
        )
        if (kind.group, kind.kind, name) == ("", "ServiceAccount", "default"):
            candidate.on_exists = OnExists.MERGE
        if note:
            candidate.source_api_version = f"{row.group}/{row.version}" if row.group else row.version
            candidate.notes += (note,)
        if served is None:
            candidate.action = Action.CONFLICT
            candidate.reason = f"the target serves no {row.kind}{'.' + row.group if row.group else ''}"
        return candidate

    def add_skipped(self, candidate: Candidate, reason: str) -> None:
        """Put an object into the plan that is left out for *reason*; its body is not needed."""
        candidate.skip(reason)
        self._keep(candidate)

    def compare(
        self, source: SourceObject, candidate: Candidate, live: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the differences between the planned object and the target's *live* one, and the patch between them."""
        rule = Rule(self.request, self._planned(candidate, 0), source.managed_fields)
        draft = transform(source.body, rule)
        take_away = candidate.on_exists is not OnExists.MERGE
        return compare(msgspec.json.decode(source.body), draft.value(), live, take_away=take_away)

    def add(self, source: SourceObject, candidate: Candidate, existing: Existing | None) -> None:
        """Put an object into the plan. *existing* is the target's object of the same name."""
        draft = Draft(source.body, candidate.kind, candidate.namespace, candidate.name)
        candidate.references = owner_references(draft)
        candidate.existing = existing
        status = msgspec.json.decode(source.status) if source.status else None
        key = (candidate.group, candidate.kind)
        reason = never_restored(*key) or self._inspect(candidate, draft, status)
        if reason:
            candidate.skip(reason)
        elif candidate.action is Action.CONFLICT:
            pass
        elif existing is not None:
            self._meet(candidate, existing)
        else:
            self._note_finalizers(candidate, draft)
            candidate.calls += has_applier(source.managed_fields)
            candidate.calls += source.row.status is not None and self.request.wants_status(*key)
            if key in _SERVICE_WAITERS:
                self._need_services(candidate, draft)
        if key == ("", "Secret"):
            candidate.differences = hide_values(candidate.differences)
        self._keep(candidate)

    def _keep(self, candidate: Candidate) -> None:
        if candidate.action is not Action.SKIP:
            self._meet_namesake(candidate)
        if candidate.row is not None and candidate.row.uid:
            self._by_uid[candidate.row.uid] = candidate
        if candidate.source_namespace and candidate.action is not Action.SKIP:
            self.namespaces_used.add(candidate.source_namespace)
        self._kinds_used.add((candidate.group, candidate.kind))
        self._candidates.append(candidate)

    def _meet_namesake(self, candidate: Candidate) -> None:
        """Find out whether the mapping gives two objects one name; the first has it."""
        if (candidate.group, candidate.kind) == ("", "Namespace"):
            first = self._namespaces.setdefault(candidate.name, candidate)
            if first is not candidate:
                candidate.skip(f"namespace {first.source_name} is mapped to {candidate.name} too; its object is taken")
        elif self.request.map_namespaces and candidate.namespace:
            key = (candidate.group, candidate.kind, candidate.namespace, candidate.name)
            first = self._mapped.setdefault(key, candidate)
            if first is not candidate:
                candidate.action = Action.CONFLICT
                candidate.reason = f"the mapping gives {first.source_namespace}/{first.source_name} the same name"

    def _inspect(self, candidate: Candidate, draft: Draft, status: dict[str, Any] | None) -> str:
        """Return why the object is left out, or ""; note what `finish` has to know about it."""
        match (candidate.group, candidate.kind):
            case ("", "Pod"):
                if reason := pod_skip_reason(draft, status):
                    return reason
                self._use_claims(candidate, draft)
            case ("batch", "Job"):
                if job_finished(status):
                    candidate.skipped_with_owner = True
                    return "finished Job"
                if status and (status.get("startTime") or status.get("succeeded")):
                    candidate.notes += ("the Job was running: it starts again from its beginning",)
                self._use_claims(candidate, draft)
            case ("", "Secret"):
                return secret_skip_reason(draft)
            case ("", "ConfigMap") if candidate.name == "kube-root-ca.crt":
                return "the target publishes its own certificate authority"
            case ("apps", _) | ("batch", "CronJob"):
                self._use_claims(candidate, draft)
            case ("", "Service"):
                if draft.spec().get("selector"):
                    self._services_with_selector.add((candidate.source_namespace, candidate.source_name))
            case ("", "Endpoints"):
                self._endpoints.append((candidate, draft))
            case ("discovery.k8s.io", "EndpointSlice"):
                return slice_skip_reason(draft)
            case ("apiregistration.k8s.io", "APIService"):
                return api_service_skip_reason(draft)
            case ("apiextensions.k8s.io", "CustomResourceDefinition"):
                service = conversion_service(draft)
                if service is not None:
                    group, _, plural = candidate.name.partition(".")[2], None, candidate.name.partition(".")[0]
                    self._conversions[group, plural] = service
            case ("", "PersistentVolumeClaim"):
                spec = draft.spec()
                self._claims.append((candidate, ClaimFacts(spec.get("volumeName", ""), spec.get("storageClassName"))))
            case ("", "PersistentVolume"):
                spec = draft.spec()
                claim = spec.get("claimRef")
                self._volumes[candidate.source_name] = (
                    candidate,
                    VolumeFacts(
                        spec.get("persistentVolumeReclaimPolicy", ""),
                        PROVISIONED_BY in (draft.meta("annotations") or {}),
                        (claim.get("namespace", ""), claim.get("name", "")) if claim else None,
                    ),
                )
            case ("storage.k8s.io", "StorageClass"):
                waits = draft.get("volumeBindingMode") == "WaitForFirstConsumer"
                self._classes.setdefault(candidate.name, StorageClassFacts(candidate.name, waits))
            case _:
                pass
        return ""

    def _use_claims(self, candidate: Candidate, draft: Draft) -> None:
        """Remember the claims that a Pod or workload mounts: a selection of workloads brings them along."""
        if not self.follow_claims:
            return
        namespace = candidate.source_namespace
        self.claims_used.update((namespace, name) for name in mounted_claims(candidate.kind, draft.spec()))
        for template in draft.spec().get("volumeClaimTemplates") or ():
            name = (template.get("metadata") or {}).get("name", "")
            self.claim_prefixes.add((namespace, f"{name}-{candidate.source_name}-"))

    def _meet(self, candidate: Candidate, existing: Existing) -> None:
        """Decide what to do with an object that the target has."""
        candidate.differences = existing.differences or ()
        # What a namespace brings with it is not the user's choice, so it is no conflict either: it is completed.
        patch = self.request.conflict is Conflict.PATCH or candidate.on_exists is OnExists.MERGE
        if existing.differences is None:
            candidate.skip("exists")
        elif not existing.differences:
            candidate.skip("exists and is equal")
        elif not patch:
            candidate.skip("exists and differs; the conflict policy is skip")
        elif existing.refusal:
            candidate.action, candidate.reason = Action.CONFLICT, existing.refusal
        else:
            candidate.action, candidate.reason = Action.PATCH, "exists and differs"

    def _note_finalizers(self, candidate: Candidate, draft: Draft) -> None:
        """Say which finalizers need a controller that the target may lack (checklist row 3)."""
        if "finalizers" not in draft.metadata or self.request.drop_finalizers:
            return
        foreign = [name for name in lasting_finalizers(draft) if "kubernetes.io/" not in name]
        if foreign:
            names = ", ".join(foreign)
            candidate.notes += (f"has finalizers, which block its deletion where their controller is absent: {names}",)

    def _need_services(self, candidate: Candidate, draft: Draft) -> None:
        if candidate.kind == "APIService":
            target = api_service_target(draft)
            services = [target] if target else []
        else:
            services = webhook_services(draft)
        for namespace, name in services:
            candidate.needs += (f"{SERVICE_NEED}{self.request.target_namespace(namespace)}/{name}",)

    def unresolved_owners(self) -> set[OwnerKey]:
        """Return the owners that only the target can have."""
        return unresolved(self._candidates, self._by_uid)

    def volumes_wanted(self) -> list[str]:
        """Return the PersistentVolumes that claims of the plan were bound to."""
        return sorted({facts.volume for _, facts in self._claims if facts.volume})

    def classes_wanted(self) -> list[str]:
        """Return the StorageClasses that claims of the plan name (after mapping) and the target lacks."""
        names = {
            self.request.map_storage_classes.get(facts.storage_class, facts.storage_class)
            for _, facts in self._claims
            if facts.storage_class
        }
        return sorted(names - set(self._classes))

    def holds(self, row: ObjectRow) -> bool:
        """Say whether the object of *row* is in the plan already."""
        return row.uid in self._by_uid

    def uses(self, group: str, kind: str) -> bool:
        """Say whether the plan holds an object of this kind."""
        return (group, kind) in self._kinds_used

    def finish(self, owners: Mapping[OwnerKey, str]) -> RestorePlan:
        """Return the plan. *owners* maps the unresolved owners that the target has to their uids."""
        for candidate, draft in self._endpoints:
            source = (candidate.source_namespace, candidate.source_name)
            if reason := endpoints_skip_reason(draft, self._services_with_selector, source):
                candidate.skip(reason)
        skip_controlled(self._candidates, self._by_uid, owners)
        self.warnings += decide_volumes(
            self._claims,
            self._volumes,
            {(entry.namespace, entry.claim): entry for entry in self.manifest.volumes},
            self.request,
            self._classes,
            snapshots_served=self.target.snapshots_served,
        )
        self._add_missing_namespaces()
        self._need_definitions()
        link_owners(self._candidates, self._by_uid, owners)
        return self._arranged()

    def _add_missing_namespaces(self) -> None:
        """Let every object have its Namespace: one of the point, one of the target, or a bare new one."""
        wanted = {
            candidate.namespace
            for candidate in self._candidates
            if candidate.namespace and candidate.action is Action.CREATE
        }
        for name in sorted(wanted):
            there = self.target.namespaces.get(name)
            planned = self._namespaces.get(name)
            if planned is None and (there is None or there.terminating):
                planned = Candidate(
                    "", "v1", "Namespace", "namespaces", False, None, "", name, "", name, Stage.NAMESPACES
                )
                planned.reason = "needed by objects of the plan; the recovery point has no such Namespace"
                self._namespaces[name] = planned
                self._candidates.append(planned)
            if planned is not None and there is not None and there.terminating and planned.action is Action.CREATE:
                planned.needs += ("the Terminating namespace of that name to be gone",)
                self.warnings.append(
                    f"namespace {name} is Terminating in the target: the restore waits until it is gone"
                )

    def _need_definitions(self) -> None:
        definitions = {
            candidate.source_name: candidate
            for candidate in self._candidates
            if (candidate.group, candidate.kind) == CRD and candidate.action is Action.CREATE
        }
        for candidate in self._candidates:
            if candidate.action is not Action.CREATE or candidate.stage not in (
                Stage.CUSTOM_RESOURCES,
                Stage.CONVERTED,
            ):
                continue
            if definition := definitions.get(f"{candidate.plural}.{candidate.group}"):
                candidate.needs += (definition.title,)
            elif (candidate.group, candidate.kind) not in self.target.served:
                candidate.action = Action.CONFLICT
                candidate.reason = (
                    f"the target serves no {candidate.kind}.{candidate.group} and its CRD is not restored"
                )
            if service := self._conversions.get((candidate.group, candidate.plural)):
                candidate.stage = Stage.CONVERTED
                candidate.needs += (f"{SERVICE_NEED}{self.request.target_namespace(service[0])}/{service[1]}",)

    def _arranged(self) -> RestorePlan:
        # Candidates are let go one by one as their planned objects are made: a large restore never holds both.
        self._by_uid.clear()
        self._mapped.clear()
        active = [candidate for candidate in self._candidates if candidate.action is not Action.SKIP]
        left_out = [candidate for candidate in self._candidates if candidate.action is Action.SKIP]
        self._candidates = []
        active.sort(key=lambda candidate: (candidate.stage, candidate.level))
        active.reverse()
        left_out.reverse()
        waves: list[tuple[str, list[PlannedObject]]] = []
        place: tuple[Stage, int] | None = None
        number = 0
        while active:
            candidate = active.pop()
            if (candidate.stage, candidate.level) != place:
                place = (candidate.stage, candidate.level)
                owned = f" (owned, depth {candidate.level})" if candidate.level else ""
                waves.append((candidate.stage.title + owned, []))
            waves[-1][1].append(self._planned(candidate, number))
            number += 1
        skipped = []
        while left_out:
            skipped.append(self._planned(left_out.pop(), number))
            number += 1
        return RestorePlan(
            id=self.plan_id,
            point=self.manifest.id,
            target=self.target.cluster,
            request=self.request,
            waves=tuple(Wave(name=name, objects=tuple(objects)) for name, objects in waves),
            skipped=tuple(skipped),
            warnings=tuple(dict.fromkeys(self.warnings)),
        )

    def _planned(self, candidate: Candidate, number: int) -> PlannedObject:
        row = candidate.row
        existing = candidate.existing
        skipped = candidate.action is Action.SKIP
        return PlannedObject(
            number=number,
            group=candidate.group,
            version=candidate.version,
            kind=candidate.kind,
            plural=candidate.plural,
            namespaced=candidate.namespaced,
            source_namespace=candidate.source_namespace,
            source_name=candidate.source_name,
            namespace=candidate.namespace,
            name=candidate.name,
            action=candidate.action,
            reason=candidate.reason,
            on_exists=candidate.on_exists,
            diff=candidate.differences,
            calls=0 if skipped or candidate.action is Action.CONFLICT else candidate.calls,
            needs=candidate.needs,
            notes=candidate.notes,
            source_uid=row.uid if row else "",
            source_api_version=candidate.source_api_version,
            body=row.body if row and not skipped else None,
            status=row.status if row and not skipped else None,
            managed_fields=row.managed_fields if row and not skipped else None,
            existing_uid=existing.uid if existing else "",
            existing_revision=existing.revision if existing else "",
            owners=candidate.owners,
            volume=candidate.volume,
            keep_volume_name=candidate.keep_volume_name,
            release_claim=candidate.release_claim,
        )


def plan_restore(
    request: RestoreRequest,
    manifest: Manifest,
    objects: Iterable[SourceObject],
    target: TargetState,
    existing: Mapping[tuple[str, str, str, str], Existing],
    *,
    plan_id: str,
    owners: Mapping[OwnerKey, str] | None = None,
) -> RestorePlan:
    """Return the plan for *objects*, all of them selected. *existing* is keyed by (group, kind, namespace, name) in the
    target; *owners* maps owners outside the plan that the target has to their uids."""
    planner = Planner(request, manifest, target, plan_id)
    entries = {(entry.group, entry.kind): entry for entry in manifest.kinds}
    for source in objects:
        candidate = planner.candidate(source.row, entries[source.row.group, source.row.kind])
        key = (candidate.group, candidate.kind, candidate.namespace, candidate.name)
        planner.add(source, candidate, existing.get(key))
    return planner.finish(owners or {})
