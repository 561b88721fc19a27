"""Sends one planned object to the target, and finds out what it means when the target has it already."""

from typing import Any

import msgspec

from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.errors import (
    KubeAlreadyExists,
    KubeConflict,
    KubeError,
    KubeForbidden,
    KubeNotFound,
    KubeServerError,
    KubeTooManyRequests,
    KubeUnauthorized,
    KubeUnreachable,
)
from strongroom.dataplane.kube.kinds import Kind
from strongroom.dataplane.restore.claims import CLAIM_UID_PATH
from strongroom.dataplane.restore.gather import refusal_of
from strongroom.dataplane.restore.journal import Outcome
from strongroom.dataplane.restore.model import Conflict, Done, FieldChange, OnExists, PlannedObject, RestoreRequest
from strongroom.dataplane.restore.rules.draft import Draft, Rule
from strongroom.dataplane.restore.rules.ownership import fields_to_put_back, has_applier, main_manager
from strongroom.dataplane.restore.rules.table import transform
from strongroom.dataplane.restore.three_way import after_dry_run, compare

SECOND_CALL_ATTEMPTS = 3  # a controller may write the new object in between; three such races in a row are none
_PASSING = (KubeConflict, KubeServerError, KubeTooManyRequests, KubeNotFound)
"""May be gone in a moment: an update race, a webhook or API server that starts, a kind that is not served yet."""


class _Uid(msgspec.Struct, frozen=True):
    uid: str = ""


class _Answer(msgspec.Struct, frozen=True):
    metadata: _Uid


_uid_of = msgspec.json.Decoder(_Answer).decode


class TryLater(Exception):
    """The object could not be written now; the same may succeed later in the wave. `reason` is the server's."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def _place(planned: PlannedObject) -> tuple[str, str, str]:
    """Return what a permission to create an object is about."""
    return (planned.group, planned.kind, planned.namespace)


class ObjectWriter:
    """Writes objects of one plan. `new_uids` maps uids of the source to those of the target and grows by the caller."""

    def __init__(self, api: KubeApi, request: RestoreRequest, new_uids: dict[str, str], intended: set[int]) -> None:
        self._api = api
        self._request = request
        self._new_uids = new_uids
        self._intended = intended
        self._allowed: set[tuple[str, str, str]] = set()  # group, kind, namespace of what was created

    async def create(
        self, planned: PlannedObject, body: bytes, status: bytes | None, managed: bytes | None, import_name: str = ""
    ) -> Outcome:
        """Create the object; return what became of it. Raises `TryLater`, and a `KubeError` when no one answers."""
        rule = Rule(self._request, planned, managed, self._new_uids, import_name)
        draft = transform(body, rule)
        kind = kind_of(planned)
        notes = draft.notes
        try:
            answer = await self._api.create(
                kind, draft.encode(), planned.namespace or None, field_manager=main_manager(managed)
            )
        except KubeAlreadyExists as error:
            met = await self._met(planned, body, draft, error, managed)
            if met.done is not Done.CREATED:
                return met
            uid = met.uid
        except (KubeUnreachable, KubeUnauthorized):
            raise
        except _PASSING as error:
            raise TryLater(refusal_of(error)) from error
        except KubeForbidden as error:
            if planned.kind == "Pod" or _place(planned) in self._allowed:
                # Admission refuses a Pod whose ServiceAccount the account controller is still about to make. An API
                # server that starts again denies everything until it has read the roles.
                raise TryLater(refusal_of(error)) from error
            return Outcome(planned.number, Done.FAILED, "", refusal_of(error))
        except KubeError as error:
            return Outcome(planned.number, Done.FAILED, "", refusal_of(error))
        else:
            uid = _uid_of(answer).metadata.uid
            self._allowed.add(_place(planned))
        notes += await self._second_calls(planned, kind, status, managed)
        return Outcome(planned.number, Done.CREATED, uid, "; ".join(notes))

    async def _second_calls(
        self, planned: PlannedObject, kind: Kind, status: bytes | None, managed: bytes | None
    ) -> list[str]:
        """Put status and managedFields back where they are due; return what could not be."""
        notes = []
        namespace = planned.namespace or None
        with_status = status is not None and self._request.wants_status(planned.group, planned.kind)
        if with_status:
            patch = {"status": msgspec.Raw(status or b"{}")}
            if why := await self._tried(kind, planned.name, namespace, patch, "status"):
                notes.append(f"its status could not be put back: {why}")
        if managed is not None and has_applier(managed) and not planned.source_api_version:
            entries = fields_to_put_back(managed, with_status=with_status)
            if why := await self._tried(kind, planned.name, namespace, {"metadata": {"managedFields": entries}}, None):
                notes.append(f"its managedFields could not be put back: {why}")
        return notes

    async def _tried(self, kind: Kind, name: str, namespace: str | None, patch: Any, subresource: str | None) -> str:
        body = msgspec.json.encode(patch)
        for _ in range(SECOND_CALL_ATTEMPTS):
            try:
                await self._api.patch(kind, name, namespace, body, subresource=subresource)
            except KubeConflict as error:
                why = refusal_of(error)
            except (KubeUnreachable, KubeUnauthorized):
                raise
            except KubeError as error:
                return refusal_of(error)
            else:
                return ""
        return why

    async def _met(
        self, planned: PlannedObject, body: bytes, draft: Draft, error: KubeAlreadyExists, managed: bytes | None
    ) -> Outcome:
        """Say what it means that the target has an object which the plan wanted to create."""
        raw = await self._api.get_at(kind_of(planned), planned.name, planned.namespace or None)
        if raw is None:
            raise TryLater("the object existed and is gone again")
        live = msgspec.json.decode(raw)
        uid = live["metadata"]["uid"]
        if live["metadata"].get("deletionTimestamp"):
            raise TryLater("the target's object of that name is being deleted")
        merge = planned.on_exists is OnExists.MERGE
        source, wanted = msgspec.json.decode(body), draft.value()
        if planned.number in self._intended or error.after_retry:
            # We, or the process that was killed before us, sent this very object and never saw the answer. What
            # controllers and defaults have added since does not make it another's.
            foreign, _ = compare(source, wanted, live, take_away=False)
            if not foreign:
                return Outcome(planned.number, Done.CREATED, uid)
        found, patch = compare(source, wanted, live, take_away=not merge)
        if not found:
            return Outcome(planned.number, Done.SKIPPED, uid, "exists and is equal")
        if merge:
            return await self._patched(planned, live, patch, managed)
        if self._request.conflict is Conflict.SKIP:
            return Outcome(planned.number, Done.SKIPPED, uid, "appeared after the plan was made and differs")
        return Outcome(
            planned.number, Done.FAILED, "", "appeared after the plan was made and differs: plan again to patch it"
        )

    async def patch(self, planned: PlannedObject, body: bytes, managed: bytes | None) -> Outcome:
        """Patch the object as planned, or refuse where it is not the one that the plan was made for."""
        raw = await self._api.get_at(kind_of(planned), planned.name, planned.namespace or None)
        if raw is None:
            return Outcome(planned.number, Done.FAILED, "", "it is gone since the plan was made: plan again")
        live = msgspec.json.decode(raw)
        metadata = live["metadata"]
        if metadata["uid"] != planned.existing_uid:
            return Outcome(planned.number, Done.FAILED, "", "it was replaced since the plan was made: plan again")
        draft = transform(body, Rule(self._request, planned, managed, self._new_uids))
        # An object that the cluster makes by itself is completed, whatever the policy: nothing is taken away from it.
        take_away = planned.on_exists is not OnExists.MERGE
        found, patch = compare(msgspec.json.decode(body), draft.value(), live, take_away=take_away)
        if planned.release_claim:
            reference = live["spec"].get("claimRef") or {}
            found += (FieldChange(path=CLAIM_UID_PATH, before=reference.get("uid")),)
            wanted = {"uid": None, "resourceVersion": None}
            patch = {**patch, "spec": {**patch.get("spec", {}), "claimRef": wanted}}
        if not found:
            return Outcome(planned.number, Done.SKIPPED, metadata["uid"], "exists and is equal by now")
        if metadata["resourceVersion"] != planned.existing_revision:
            changed = await self._differs_from_plan(planned, live, found, patch)
            if changed:
                return Outcome(planned.number, Done.FAILED, "", changed)
        return await self._patched(planned, live, patch, managed)

    async def _differs_from_plan(
        self, planned: PlannedObject, live: dict[str, Any], found: tuple[FieldChange, ...], patch: dict[str, Any]
    ) -> str:
        """Say why a patch of an object that changed since planning would not be the one that was read, or ""."""
        namespace = planned.namespace or None
        try:
            answer = await self._api.patch(kind_of(planned), planned.name, namespace, patch, dry_run=True)
        except (KubeUnreachable, KubeUnauthorized):
            raise
        except KubeError as error:
            return refusal_of(error)
        real = after_dry_run(found, live, msgspec.json.decode(answer))
        hidden = {change.path for change in planned.diff if change.hidden}
        now = {(c.path, "" if c.path in hidden else repr((c.before, c.after))) for c in real}
        then = {(c.path, "" if c.hidden else repr((c.before, c.after))) for c in planned.diff}
        if now == then:
            return ""
        paths = ", ".join(sorted(path for path, _ in now ^ then))
        return f"the target's object changed after the plan was made ({paths}): plan again"

    async def _patched(
        self, planned: PlannedObject, live: dict[str, Any], patch: dict[str, Any], managed: bytes | None
    ) -> Outcome:
        metadata = live["metadata"]
        # With the resourceVersion the server refuses the patch if anybody changes the object in between.
        guarded = {**patch, "metadata": {**patch.get("metadata", {}), "resourceVersion": metadata["resourceVersion"]}}
        try:
            await self._api.patch(
                kind_of(planned),
                planned.name,
                planned.namespace or None,
                guarded,
                field_manager=main_manager(managed),
            )
        except (KubeUnreachable, KubeUnauthorized):
            raise
        except _PASSING as error:
            raise TryLater(refusal_of(error)) from error
        except KubeError as error:
            return Outcome(planned.number, Done.FAILED, "", refusal_of(error))
        return Outcome(planned.number, Done.PATCHED, metadata["uid"])

    async def add_owners(self, planned: PlannedObject, body: bytes) -> str:
        """Add the ownerReferences whose owners came later; return "" or why they could not be added."""
        now = tuple(
            msgspec.structs.replace(owner, deferred=False)
            for owner in planned.owners
            if owner.uid or owner.source_uid in self._new_uids
        )
        rule = Rule(self._request, msgspec.structs.replace(planned, owners=now), None, self._new_uids)
        references = transform(body, rule).metadata.get("ownerReferences")
        if not references:
            return "its owners were not restored: it has no ownerReferences"
        patch = {"metadata": {"ownerReferences": references}}
        return await self._tried(kind_of(planned), planned.name, planned.namespace or None, patch, None)


def kind_of(planned: PlannedObject) -> Kind:
    """Return the kind under which a planned object is sent."""
    return Kind(planned.group, planned.version, planned.kind, planned.plural, planned.namespaced, frozenset())
