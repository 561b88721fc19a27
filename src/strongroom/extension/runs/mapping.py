"""Turns ARM's words into the data plane's: selections, restore criteria, resource types, label selectors. Pure.

What each word means is said in docs/reference/extension.md.
"""

import re
from collections.abc import Iterable
from typing import Final, TypeVar

from strongroom.dataplane.repository import model
from strongroom.dataplane.restore.model import Conflict, RestoreRequest, VolumeMode
from strongroom.extension.api.documents import DocumentInvalid, NamespacedName, RestoreCriteria, Selection
from strongroom.extension.api.status import Failure
from strongroom.protection.errors import ErrorCode

# A version as Kubernetes orders them: v1, v2beta1. What else stands before a slash is a group.
_VERSION = re.compile(r"v[0-9]+((alpha|beta)[0-9]+)?", re.ASCII)
_CORE: Final = "core"
_T = TypeVar("_T")

_CONFLICT_POLICIES: Final = {"skip": Conflict.SKIP, "patch": Conflict.PATCH}
_VOLUME_MODES: Final = {"restorewithvolumedata": VolumeMode.DATA, "restorewithoutvolumedata": VolumeMode.NONE}


def backup_selection(selection: Selection) -> model.Selection:
    """Return what a backup is to take. Raises `DocumentInvalid` for a resource type that cannot be one."""
    return model.Selection(
        include_namespaces=selection.included_namespaces or (),
        exclude_namespaces=selection.excluded_namespaces or (),
        include_kinds=_kinds("includedResourceTypes", selection.included_resource_types),
        exclude_kinds=_kinds("excludedResourceTypes", selection.excluded_resource_types),
        selectors=one_selector(selection.label_selectors or ()),
        cluster_scoped=selection.include_cluster_scope_resources,
    )


def restore_request(criteria: RestoreCriteria) -> RestoreRequest:
    """Return what a restore is to do. Without a conflict policy it skips, without a volume mode it brings the data.

    Raises `DocumentInvalid`.
    """
    return RestoreRequest(
        selection=model.Selection(
            include_namespaces=criteria.included_namespaces or (),
            exclude_namespaces=criteria.excluded_namespaces or (),
            include_kinds=_kinds("includedResourceTypes", criteria.included_resource_types),
            exclude_kinds=_kinds("excludedResourceTypes", criteria.excluded_resource_types),
            selectors=one_selector(criteria.label_selectors or ()),
            cluster_scoped=criteria.include_cluster_scope_resources,
        ),
        map_namespaces=criteria.namespace_mappings or {},
        conflict=_one_of("conflictPolicy", criteria.conflict_policy, _CONFLICT_POLICIES, "Skip or Patch")
        or Conflict.SKIP,
        volumes=_one_of(
            "persistentVolumeRestoreMode",
            criteria.persistent_volume_restore_mode,
            _VOLUME_MODES,
            "RestoreWithVolumeData or RestoreWithoutVolumeData",
        )
        or VolumeMode.DATA,
    )


def one_selector(entries: Iterable[str]) -> tuple[str, ...]:
    """Return ARM's label selectors as at most one selector, in which every requirement must hold.

    The portal writes requirements with ';' between them and all must hold (Microsoft's "Configure backup", quoted in
    section 2, row 15 of the reference); a list of entries is the same thing written by a script. To be taken where
    any of them holds, an object would have to be named by a backup instance of its own.
    """
    requirements = [part.strip() for entry in entries for part in entry.split(";") if part.strip()]
    return (",".join(requirements),) if requirements else ()


def resource_type(text: str) -> str:
    """Return one of ARM's resource types as the data plane spells kinds.

    `v1/Secret`, `apps/Deployment`, `apps/v1/Deployment`, `core/Secret` and all that kubectl takes (`deployments.apps`,
    `secrets`). Raises `ValueError` for what has no kind in it.
    """
    parts = [part.strip() for part in text.split("/")]
    if not all(parts) or len(parts) > 3:
        raise ValueError(f"{text[:80]!r} is no resource type")
    match parts:
        case [kind]:
            return kind
        case [version, kind] if _VERSION.fullmatch(version):
            return f"{version}/{kind}"
        case [group, kind]:
            return f"v1/{kind}" if group == _CORE else f"{kind}.{group}"
        case [group, version, kind]:
            return f"{version}/{kind}" if group == _CORE else f"{kind}.{group}"
    raise AssertionError("one to three parts")


def unsupported_of_backup(selection: Selection) -> list[Failure]:
    """Return what a selection asks for and is not built: a backup must not run silently without it."""
    found = []
    if selection.included_volume_types:
        found.append(
            _unsupported(
                f"volumes cannot be chosen by type ({', '.join(selection.included_volume_types)}) yet",
                "spec.selection.includedVolumeTypes",
                "Remove includedVolumeTypes; leave a claim out with its annotation velero.io/exclude-from-backup=true",
            )
        )
    return found


def unsupported_of_restore(criteria: RestoreCriteria) -> list[Failure]:
    """Return what restore criteria ask for and is not built."""
    modifier = criteria.resource_modifier_reference
    if modifier is None:
        return []
    return [
        _unsupported(
            f"resource modifiers are not supported yet: {_names((modifier,))}",
            "spec.criteria.resourceModifierReference",
            "Remove resourceModifierReference and change the objects after the restore",
        )
    ]


def _unsupported(message: str, target: str, action: str) -> Failure:
    return Failure(code=str(ErrorCode.NOT_SUPPORTED), message=message, target=target, recommended_action=(action,))


def _names(references: Iterable[NamespacedName]) -> str:
    return ", ".join(f"{each.namespace}/{each.name}" if each.namespace else each.name for each in references)


def _kinds(field: str, types: tuple[str, ...] | None) -> tuple[str, ...]:
    kinds = []
    for number, text in enumerate(types or ()):
        try:
            kinds.append(resource_type(text))
        except ValueError as error:
            raise DocumentInvalid(
                f"{field}[{number}]: {error}",
                field=f"{field}[{number}]",
                hint="Write group/Kind (apps/Deployment), v1/Kind for the core group, or as kubectl does",
            ) from error
    return tuple(kinds)


def _one_of(field: str, value: str | None, known: dict[str, _T], accepted: str) -> _T | None:
    if value is None:
        return None
    found = known.get(value.lower())
    if found is None:
        raise DocumentInvalid(f"{field} is {value[:80]!r}; {accepted} is understood", field=f"spec.criteria.{field}")
    return found
