"""A restore request as a value: which point, into which cluster, what of it and how.

Full restores come as item-level ones too: for Kubernetes clusters the wire knows no other shape (reference 1.6).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from strongroom.protection.errors import UserError, refuse_if_any, shown
from strongroom.protection.fields import Fields
from strongroom.protection.job import Limits
from strongroom.protection.retention import DataStore
from strongroom.protection.selection import RestoreCriteria, read_restore_criteria
from strongroom.protection.settings import Datasource, read_datasource, read_datasource_set

_REQUEST_TYPE = "AzureBackupRecoveryPointBasedRestoreRequest"


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """Restore what *criteria* select of the point into *target*, which may be another cluster than it came from."""

    recovery_point_id: str
    target: Datasource
    criteria: RestoreCriteria


def parse_restore_request(
    document: Mapping[str, object], path: str = "", limits: Limits | None = None
) -> RestoreRequest:
    """Return the request in an ARM AzureBackupRestoreRequest at *path* ("restoreRequestObject" of a validation).

    Raises `Refused` with every problem: also for what Azure has and Strongroom has not (vault tier, rehydration,
    restores to a time or as files).
    """
    problems: list[UserError] = []
    fields = Fields(document, path, problems)
    fields.object_type([_REQUEST_TYPE], "Restores are made from a recovery point.")
    point = fields.text("recoveryPointId")
    store = fields.choice("sourceDataStoreType", DataStore)
    if store is not None and store is not DataStore.OPERATIONAL:
        fields.wrong("sourceDataStoreType", f"{store} is not supported; points lie in the {DataStore.OPERATIONAL}")
    target, criteria = None, None
    info = fields.child("restoreTargetInfo")
    if info is not None:
        info.object_type(["ItemLevelRestoreTargetInfo"], "A full restore is sent as one criterion without filters.")
        option = info.text("recoveryOption", required=False)
        if option and option.casefold() != "failifexists":
            info.wrong("recoveryOption", f"{shown(option)} is not accepted; accepted is FailIfExists")
        target = read_datasource(info, "datasourceInfo")
        read_datasource_set(info, "datasourceSetInfo", target, required=False)
        found = info.children("restoreCriteria")
        if len(found) == 1:
            criteria = read_restore_criteria(found[0], limits or Limits())
        else:
            info.wrong("restoreCriteria", f"there are {len(found)} criteria; exactly one is needed")
    refuse_if_any(problems, "The restore request")
    assert target is not None, "without a problem there is a target"
    assert criteria is not None, "without a problem there are criteria"
    return RestoreRequest(point, target, criteria)
